// Checks AsyncAPI documents, YAML or JSON, with the official parser: node check.mjs FILE...
// Any diagnostic fails, a hint like an error: exit code 1. Exit code 2: no file was named, or one cannot be read.
import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const SEVERITIES = ['error', 'warning', 'info', 'hint'];

const files = process.argv.slice(2);
if (files.length === 0) {
  console.error('Name the documents to check: node check.mjs FILE...');
  process.exit(2);
}

function read(file) {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    console.error(`${file} cannot be read: ${error.message}`);
    process.exit(2);
  }
}

// One for all files: making a parser compiles its rules, which takes longer than a document.
const parser = new Parser();
let failed = false;
for (const file of files) {
  const { document, diagnostics } = await parser.parse(read(file), { source: file });
  for (const { severity, code, path, message, range } of diagnostics) {
    const where = `${file}:${range.start.line + 1}`;
    console.log(`${where}: ${SEVERITIES[severity]} ${code} at ${path.join('.') || 'the root'}: ${message}`);
  }
  if (document === undefined || diagnostics.length > 0) {
    failed = true;
    console.log(`${file}: ${diagnostics.length} diagnostics`);
  } else {
    const counts = ['channels', 'operations', 'messages'].map((kind) => `${kind} ${document[kind]().length}`);
    console.log(`${file}: valid AsyncAPI ${document.version()}: ${counts.join(', ')}`);
  }
}
process.exit(failed ? 1 : 0);
