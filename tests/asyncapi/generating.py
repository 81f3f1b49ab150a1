"""Clients that are generated from documents, run as programs of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from asyncapi_python.contrib.codec.json import JsonCodecFactory

from tests.asyncapi.reading import Document, Said, misfits, said
from tests.asyncapi.tap import Delivered
from tests.asyncapi.tools import ROOT

_OTHER_SIDE: Final = {"send": "receive", "receive": "send"}
_CLIENTS: Final = "tests.asyncapi.clients"


def mirrored(document: Document) -> Document:
    """The document of whoever talks to the service: what the one sends the other receives."""
    other = deepcopy(document)
    operations = other["operations"]
    for key in list(operations):
        operation = operations.pop(key)
        action = operation["action"]
        operation["action"] = _OTHER_SIDE[action]
        operations[f"{_OTHER_SIDE[action]}{key.removeprefix(action)}"] = operation
    return other


def class_of(name: str) -> str:
    """The class that the generator makes for the message of this name."""
    return str(JsonCodecFactory._to_class_name(JsonCodecFactory.__new__(JsonCodecFactory), name))


@dataclass(frozen=True)
class Client:
    """A package that was generated from a service's mirrored document.

    Args:
        document: the mirrored document.
    """

    folder: Path
    package: str
    document: Document = field(repr=False)

    @classmethod
    def generate(cls, service: str, document: Document, folder: Path) -> Client:
        """Run the generator."""
        client = cls(folder, f"{service}_client", mirrored(document))
        specification = folder / f"{client.package}.json"
        specification.write_text(json.dumps(client.document))
        program = Path(sys.executable).with_name("asyncapi-python-codegen")
        done = subprocess.run(
            [program, specification, folder / client.package],
            capture_output=True,
            text=True,
            timeout=250,
            # It has mypy look at what it made, and tells about types of its own. Here mypy finds no settings.
            cwd=folder,
            env={**os.environ, "PYTHONWARNINGS": "ignore", "MYPY_CACHE_DIR": str(folder / f"{service}_mypy")},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return client

    def run(self, code: str, given: Any) -> Any:
        """Run some lines of Python beside the package, with JSON on their input; what they print, as JSON."""
        return json.loads(self._finished([sys.executable, "-W", "ignore", "-c", code], given))

    def ask(self, broker: str, questions: list[dict[str, Any]]) -> Any:
        """What comes of asking; see `tests.asyncapi.clients.asking`."""
        return json.loads(self._finished([*self._program("asking"), self.package, broker], questions))

    @contextlib.contextmanager
    def answering(self, broker: str, rules: list[dict[str, Any]]) -> Iterator[Answering]:
        """Answers until the block ends; see `tests.asyncapi.clients.answering`."""
        process = subprocess.Popen(
            [*self._program("answering"), self.package, broker, json.dumps(rules)],
            cwd=ROOT,
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            answering = Answering()
            yield answering
            answering.told = json.loads(process.communicate(timeout=30)[0])
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stdin.close()

    @staticmethod
    def _program(name: str) -> list[str]:
        return [sys.executable, "-W", "ignore", "-m", f"{_CLIENTS}.{name}"]

    def _finished(self, command: list[str], given: Any) -> str:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=self._environment(),
            input=json.dumps(given),
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join([str(self.folder), str(ROOT)])}


@dataclass
class Answering:
    """What a client that answers has to tell when it has ended."""

    told: Any = None


def undocumented(document: Document, told: Mapping[str, Any]) -> list[tuple[str, dict[str, list[str]]]]:
    """What the client sent or got that its document does not know; with what speaks against each message."""
    found = []
    known = list(said(document))
    for says, messages in ((True, told["sent"]), (False, told["arrived"])):
        for one in messages:
            message = Delivered(one["queue"], one["headers"], one["properties"], one["body"].encode())
            against = {
                place.name: misfits(document, _at_whatever_queue(place), message)
                for place in known
                if place.says is says
            }
            if all(against.values()):
                found.append(
                    (message.task, {name: why for name, why in against.items() if message.task in name})
                )
    return found


def _at_whatever_queue(place: Said) -> Said:
    """A client has a reply queue of its own."""
    return replace(place, address=None)
