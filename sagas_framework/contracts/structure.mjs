// What differs between pairs of AsyncAPI documents, by @asyncapi/diff.
// argv: a folder node_modules. stdin: [[old, new], ...] as JSON. stdout: [[change, ...], ...] as JSON.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { resolve } from 'node:path';

const { diff } = createRequire(resolve(process.argv[2], 'index.js'))('@asyncapi/diff');
const pairs = JSON.parse(readFileSync(0, 'utf8'));
const changes = pairs.map(([older, newer]) => diff(older, newer).getOutput().changes);
process.stdout.write(JSON.stringify(changes));
