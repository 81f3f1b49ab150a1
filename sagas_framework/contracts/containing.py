"""Whether one JSON schema takes all that another allows: asked of `jsonsubschema`, in a process of its own.

Comparing two patterns can take for ever, and some schemas make the library leave the interpreter. So it
runs in a child, which is given up when it thinks for `PATIENCE` seconds; there is no answer then.

Reference:
    A. Habib et al., "Finding Data Compatibility Bugs with JSON Subschema Checking", ISSTA 2021.
"""

from __future__ import annotations

import json
import subprocess
import sys
from queue import Empty, Queue
from threading import Thread
from types import TracebackType
from typing import Any, Final, Self

from sagas_framework.contracts.errors import needed

PATIENCE: Final = 10.0  # seconds
_BEGINS_WITHIN: Final = 60.0
"""Seconds for the child to import the library. A busy machine takes long; that says nothing of a question."""

# The child's whole program. It keeps stdout for answers: the library prints.
_CHILD: Final = """
import json, sys
answers, sys.stdout = sys.stdout, sys.stderr
from jsonsubschema import isSubschema
print("ready", file=answers, flush=True)
for line in sys.stdin:
    sent, taken = json.loads(line)
    try:
        answer = bool(isSubschema(sent, taken))
    except (Exception, SystemExit):
        answer = None
    print(json.dumps(answer), file=answers, flush=True)
"""


class Containing:
    """Answers the question; use it as a context, and it ends its child.

    Raises:
        CannotCompare: the library is not installed.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        needed("jsonsubschema")
        self._patience = patience
        self._child: subprocess.Popen[str] | None = None
        self._answers: Queue[str] = Queue()
        self._known: dict[str, bool | None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def contains(self, taken: Any, sent: Any) -> bool | None:
        """Whether every value of the schema *sent* is one of *taken*; None if nobody can tell.

        Both are draft-04 without references.
        """
        question = json.dumps([sent, taken], sort_keys=True)
        if question not in self._known:
            self._known[question] = self._ask(question)
        return self._known[question]

    def _ask(self, question: str) -> bool | None:
        try:
            child = self._child or self._begin()
            assert child.stdin is not None
            child.stdin.write(question + "\n")
            child.stdin.flush()
            answer: bool | None = json.loads(self._answers.get(timeout=self._patience))
        except (Empty, OSError, ValueError):  # it thinks for too long, or has died
            self._end()
            return None
        return answer

    def _begin(self) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        answers: Queue[str] = Queue()

        def listen() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                answers.put(line)
            answers.put("")  # no JSON: it has ended

        Thread(target=listen, daemon=True).start()
        self._child, self._answers = child, answers
        answers.get(timeout=_BEGINS_WITHIN)  # it is ready, or has ended
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for stream in (child.stdin, child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    pass  # what was not yet written is of no interest
