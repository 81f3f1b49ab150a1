"""How a stub answers each command: as the options say, or else with success."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import inf
from typing import Any, Final, TypeVar

from sagas_framework.errors import SagasError
from sagas_framework.stub.document import Document, Refusal, Taken
from sagas_framework.stub.schemas import NoValue

V = TypeVar("V")


class WrongOption(SagasError):
    """An option names no command or no failure, or contradicts another one."""


@dataclass(frozen=True)
class Behaviour:
    """What becomes of the messages of one task.

    Args:
        answer: the payload of success.
        refusal: what is answered instead, for good.
        failing: how many attempts fail first, for a transient reason; `inf` for all.
        silent: nothing is done and nothing answered.
        delay: between the work and its answer.
    """

    answer: Any = None
    refusal: Refusal | None = None
    failing: float = 0
    silent: bool = False
    delay: timedelta = timedelta(0)

    @property
    def told(self) -> str:
        """In words, as in ``fails twice, then answers {"ticket_id": 1}, after 3 s``."""
        if self.silent:
            return "is silent"
        if self.failing == inf:
            told = "fails"
        elif self.refusal is not None:
            told = f"refuses: {self.refusal.name}"
        else:
            told = f"answers {json.dumps(self.answer, ensure_ascii=False)}"
            if self.failing:
                times = "once" if self.failing == 1 else f"{self.failing:g} times"
                told = f"fails {times}, then {told}"
        return f"{told}, after {self.delay.total_seconds():g} s" if self.delay else told


@dataclass(frozen=True)
class Options:
    """The options of ``saga stub``: each a sequence of pairs of a task and what is said of it.

    Args:
        answer: payloads of success, as JSON text.
        refuse: names of failures.
        fail: numbers of attempts; `inf` for all.
        silent: tasks alone.
    """

    answer: Sequence[tuple[str, str]] = ()
    refuse: Sequence[tuple[str, str]] = ()
    fail: Sequence[tuple[str, float]] = ()
    silent: Sequence[str] = ()
    delay: Sequence[tuple[str, timedelta]] = ()


NO_OPTIONS: Final = Options()
SUCCESS: Final = Behaviour()
"""Of settling, unless it is told otherwise: what it answers is in the inbox."""


def behaviours(document: Document, options: Options = NO_OPTIONS) -> dict[str, Behaviour]:
    """How each task of a document behaves; those that settle are there if an option names them.

    Raises:
        WrongOption: an option does not fit the document; the message says what there is.
    """
    return _Options(document, options).behaviours()


class _Options:
    def __init__(self, document: Document, options: Options) -> None:
        self._document = document
        self._options = options
        self._by_task = {taken.task: taken for taken in document.taken}
        self._settlings = [taken.settling for taken in document.taken]

    def behaviours(self) -> dict[str, Behaviour]:
        options = self._options
        answers = self._once("--answer", options.answer, self._by_task)
        refused = self._once("--refuse", options.refuse, self._by_task)
        failing = self._once("--fail", options.fail, self._by_task)
        every = [*self._by_task, *self._settlings]
        silent = self._once("--silent", [(name, True) for name in options.silent], every)
        delays = self._once("--delay", options.delay, every)
        self._at_most_one({"--refuse": refused, "--fail": failing, "--silent": silent})
        self._at_most_one({"--delay": delays, "--silent": silent})
        self._at_most_one({"--answer": answers, "--refuse": refused, "--silent": silent})
        found = {}
        for task, taken in self._by_task.items():
            behaviour = Behaviour(failing=failing.get(task, 0), silent=task in silent)
            if task in refused:
                behaviour = replace(behaviour, refusal=self._refusal(taken, refused[task]))
            elif not behaviour.silent and behaviour.failing != inf:
                behaviour = replace(behaviour, answer=self._answer(taken, answers.get(task)))
            found[task] = behaviour
        for task in {*silent, *delays} - set(found):
            found[task] = Behaviour(silent=task in silent)
        for task, delay in delays.items():
            found[task] = replace(found[task], delay=delay)
        return found

    # ---- names --------------------------------------------------------------------------------------

    def _once(self, option: str, pairs: Sequence[tuple[str, V]], tasks: Iterable[str]) -> dict[str, V]:
        """The pairs by the full name of the task."""
        found = [(self._task(option, name, tasks), value) for name, value in pairs]
        for task, count in Counter(task for task, _ in found).items():
            if count > 1:
                raise WrongOption(f"{option} says {count} times what becomes of {task}. Say it once.")
        return dict(found)

    def _task(self, option: str, name: str, tasks: Iterable[str]) -> str:
        """The task that is meant by its name, or by the end of it."""
        tasks = list(tasks)
        meant = [task for task in tasks if task == name] or [
            task for task in tasks if task.endswith(f".{name}")
        ]
        if len(meant) == 1:
            return meant[0]
        source = self._document.source
        if meant:
            raise WrongOption(
                f"{option}: {name!r} may be {' or '.join(meant)} in {source}. Write the whole name."
            )
        if name and self._is_settling(name):
            raise WrongOption(
                f"{option}: {name!r} is settling, which is answered from the inbox: "
                "it can be silent or delayed."
            )
        raise WrongOption(
            f"{option}: {source} receives no command {name!r}; it receives "
            f"{', '.join(taken.short for taken in self._document.taken)}."
        )

    def _is_settling(self, name: str) -> bool:
        return any(task == name or task.endswith(f".{name}") for task in self._settlings)

    @staticmethod
    def _at_most_one(said: Mapping[str, Mapping[str, object]]) -> None:
        for first, tasks in said.items():
            for second, others in said.items():
                if first < second and (both := sorted(set(tasks) & set(others))):
                    raise WrongOption(
                        f"{first} and {second} contradict each other for {both[0]}. Take one away."
                    )

    # ---- values -------------------------------------------------------------------------------------

    def _refusal(self, taken: Taken, name: str) -> Refusal:
        if name in taken.refusals:
            return taken.refusals[name]
        if taken.undoes and name:
            return Refusal(name)  # no contract lists the failures of a compensation
        there = ", ".join(taken.refusals) or "none"
        raise WrongOption(
            f"--refuse: {taken.task} has no failure {name!r} in {self._document.source}; "
            f"it declares: {there}. For a fault that may pass: --fail {taken.short}."
        )

    def _answer(self, taken: Taken, given: str | None) -> Any:
        if given is not None:
            return self._given(taken, given)
        try:
            return taken.answer()
        except NoValue as error:
            raise WrongOption(
                f"No answer to {taken.task} can be found in {self._document.source}: no example fits the "
                f"schema of its reply, and none could be made ({error}). Give one: "
                f"--answer {taken.short}='{{...}}'."
            ) from None

    def _given(self, taken: Taken, text: str) -> Any:
        try:
            answer = json.loads(text)
        except ValueError as error:
            raise WrongOption(
                f"--answer: {text!r} for {taken.task} is no JSON: {error}. Write it like "
                f"--answer {taken.short}='{_sample(taken)}'."
            ) from None
        if troubles := taken.reply.troubles(answer):
            raise WrongOption(
                f"--answer: {text} is no success of {taken.task}: {'; '.join(map(str, troubles))}. "
                f"Write it like --answer {taken.short}='{_sample(taken)}'."
            )
        return answer


def _sample(taken: Taken) -> str:
    try:
        return json.dumps(taken.answer(), ensure_ascii=False)
    except NoValue:
        return "{...}"
