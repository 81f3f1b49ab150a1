"""What a type checker says of a wrong declaration, line by line.

A trailing ``# error: code`` says which errors mypy must report on that line; a line without it is right.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]

CONTRACTS = """
from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework.core.instance import Outcome
from sagas_framework.messages import Command, Compensation, Reply, Service, Signal
from sagas_framework.participant import Context, Later, Participant, Undo
from sagas_framework.saga import Saga, Steps
from sagas_framework.steps import NO_DEADLINE, NOTHING_TO_UNDO, on

kitchen = Service("kitchen")

class Cooked(Reply):
    dish: str

class Cook(Command[Cooked], service=kitchen, name="cook"):
    dish: str

class ThrowAway(Compensation[Cook], service=kitchen, name="throw_away"):
    dish: str | None

class Ring(Command[None], service=kitchen, name="ring"):
    loudness: int

class Unring(Compensation[Ring], service=kitchen, name="unring"):
    pass

class Done(Signal, name="done"):
    by: str

class Ruined(Signal, name="ruined"):
    pass

class Dinner(BaseModel):
    dish: str = "soup"

class Lunch(BaseModel):
    noon: int = 12

step = Steps(Dinner)
context: Context
"""

RIGHT = """
def cook(state: Dinner) -> Cook:
    return Cook(dish=state.dish)

def remember(state: Dinner, reply: Cooked) -> None:
    state.dish = reply.dish

def rung(state: Dinner, reply: None) -> None: ...

def lay_table(state: Dinner, session: Session) -> None: ...

def clear_table(state: Dinner, session: Session, why: Outcome) -> None: ...

def take(state: Dinner, done: Done) -> None:
    state.dish = done.by

class ServeDinner(Saga[Dinner], name="serve_dinner", version=1):
    table = step.local(lay_table, compensation=lay_table, loads=lambda s: (Dinner, s.dish))
    cloth = step.local(lay_table, compensation=clear_table)
    cooking = step.command(Cook, cook, on_success=remember, compensation=lambda s: ThrowAway(dish=s.dish))
    tasting = step.command(Cook, lambda s: Cook(dish=s.dish), compensation=NOTHING_TO_UNDO)
    ringing = step.command(Ring, lambda s: Ring(loudness=1), on_success=rung, pivot=True)
    last = step.local(lay_table)

kitchen_worker = Participant(kitchen, database="sqlite://")

@kitchen_worker.handles(Cook)
def cook_now(command: Cook, context: Context) -> Cooked:
    return Cooked(dish=command.dish)

@kitchen_worker.handles(Cook, loads=lambda command: (Dinner, command.dish))
def cook_later(command: Cook, context: Context) -> Later[Cooked]:
    return lambda: Cooked(dish=command.dish)

@kitchen_worker.handles(Ring)
def ring(command: Ring, context: Context) -> None: ...

@kitchen_worker.undoes(ThrowAway, loads=lambda command: (Dinner, command.dish))
def throw_away(command: ThrowAway, undo: Undo[Cook]) -> None: ...

reveal_type(cook_now(Cook(dish="soup"), context))  # note: Cooked
reveal_type(cook_later(Cook(dish="soup"), context)())  # note: Cooked
reveal_type(ServeDinner.cooking)  # note: CommandStep[Dinner]
reveal_type(ServeDinner.table)  # note: LocalStep[Dinner]
"""

WRONG = {
    "a wrong field in a request": """
step.command(Cook, lambda s: Cook(dish=s.plate), pivot=True)  # error: attr-defined
step.command(Cook, lambda s: Cook(plate=s.dish), pivot=True)  # error: call-arg
step.command(Cook, lambda s: Cook(dish=7), pivot=True)  # error: arg-type
""",
    "a row that the state does not name": """
step.local(loads=lambda s: (Dinner, s.plate))  # error: attr-defined
""",
    "a hook for another reply": """
def remember(state: Dinner, reply: Cooked) -> None: ...
def remember_unset(state: Dinner, reply: None) -> None: ...
step.command(Ring, lambda s: Ring(loudness=1), on_success=remember, pivot=True)  # error: misc
step.command(Cook, lambda s: Cook(dish="x"), on_success=remember_unset, pivot=True)  # error: arg-type
""",
    "a hook that reads what the reply does not have": """
def remember(state: Dinner, reply: Cooked) -> None:
    state.dish = reply.plate  # error: attr-defined
    state.dish = 7  # error: assignment
""",
    "another command returned": """
def ring(state: Dinner) -> Ring:
    return Ring(loudness=1)
step.command(Cook, ring, pivot=True)  # error: arg-type
step.command(Cook, lambda s: Ring(loudness=1), pivot=True)  # error: arg-type return-value
""",
    "the compensation of another command": """
def cook(state: Dinner) -> Cook:
    return Cook(dish=state.dish)
step.command(Cook, cook, compensation=lambda s: Unring())  # error: arg-type return-value
def unring(state: Dinner) -> Unring:
    return Unring()
step.command(Cook, cook, compensation=unring)  # error: arg-type
step.command(Cook, cook, compensation=lambda s: ThrowAway(dish=s.plate))  # error: attr-defined
""",
    "what waits": """
def take(state: Dinner, done: Done) -> None: ...
def take_at_lunch(state: Lunch, done: Done) -> None: ...
step.wait(on(Ruined, take), deadline=NO_DEADLINE)  # error: arg-type
step.wait(on(Done, take_at_lunch), deadline=NO_DEADLINE)  # error: arg-type
step.wait(on(Done, lambda s, d: print(d.plate)), deadline=NO_DEADLINE)  # error: attr-defined
step.wait(on(Done, take))  # error: call-arg
step.wait(on(Done, take), deadline=lambda s: s.plate)  # error: attr-defined
step.wait(on(Done, take), deadline="noon")  # error: arg-type
step.delay(until=lambda s: 7)  # error: arg-type return-value
step.local(when=lambda s: s.plate)  # error: attr-defined
Done(by=7)  # error: arg-type
""",
    "hooks for another state": """
def cook(state: Lunch) -> Cook:
    return Cook(dish="x")
def lay_table(state: Lunch, session: Session) -> None: ...
def sit_down(state: Dinner) -> None: ...
def clear_table(state: Dinner, session: Session, why: str) -> None: ...
step.command(Cook, cook, pivot=True)  # error: arg-type
step.local(lay_table)  # error: arg-type
step.local(sit_down)  # error: arg-type
step.local(compensation=clear_table)  # error: arg-type
""",
    "a handler that answers something else": """
kitchen_worker = Participant(kitchen, database="sqlite://")
@kitchen_worker.handles(Cook)  # error: arg-type
def cook(command: Cook, context: Context) -> None: ...
@kitchen_worker.handles(Ring)  # error: arg-type
def ring(command: Ring, context: Context) -> Later[Cooked]:
    return lambda: Cooked(dish="soup")
@kitchen_worker.handles(Cook)  # error: arg-type
def cook_too(command: Ring, context: Context) -> Cooked:
    return Cooked(dish="soup")
kitchen_worker.handles(Cook, loads=lambda command: (Dinner, command.plate))  # error: attr-defined
""",
    "the step of another saga": """
class ServeDinner(Saga[Dinner], name="serve_dinner", version=1):
    cooking = step.command(Cook, lambda s: Cook(dish=s.dish), pivot=True)
class ServeLunch(Saga[Lunch], name="serve_lunch", version=1):
    cooking = step.command(Cook, lambda s: Cook(dish=s.dish), pivot=True)
ServeDinner.cooking
ServeLunch.cooking  # error: arg-type
""",
    "a subscriber of another event": """
from sagas_framework import Event, EventContext, Subscriber

class Served(Event, service=kitchen, name="served"):
    dish: str

class Burnt(Event, service=kitchen, name="burnt"):
    dish: str

subscriber = Subscriber(kitchen, database="sqlite://")

@subscriber.subscribes(Served)
def right(event: Served, context: EventContext) -> None: ...

@subscriber.subscribes(Served)  # error: arg-type
def wrong(event: Burnt, context: EventContext) -> None: ...

@subscriber.subscribes(Cook)  # error: type-var
def no_event(event: Cook, context: EventContext) -> None: ...
""",
}


def check(tmp_path: Path, source: str) -> tuple[set[tuple[int, str]], str]:
    """`(line, code)` of every error, and all that mypy said."""
    cases = tmp_path / "typing_cases.py"
    cases.write_text(CONTRACTS + source)
    cache = ROOT / ".mypy_cache"
    said, trouble, _ = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache), "--no-pretty", str(cases)]
    )
    assert not trouble, trouble
    found = re.findall(r"typing_cases\.py:(\d+): error: .*\[([a-z-]+)\]$", said, flags=re.MULTILINE)
    return {(int(line), code) for line, code in found}, said


def meant(source: str) -> set[tuple[int, str]]:
    lines = (CONTRACTS + source).splitlines()
    marked = ((number, line.partition("# error: ")[2]) for number, line in enumerate(lines, start=1))
    return {(number, code) for number, codes in marked for code in codes.split()}


def test_a_right_declaration_has_no_error_and_its_steps_know_their_state(tmp_path: Path) -> None:
    errors, said = check(tmp_path, RIGHT)

    assert errors == set(), said
    assert 'Revealed type is "sagas_framework.steps.CommandStep[typing_cases.Dinner]"' in said
    assert said.count('Revealed type is "typing_cases.Cooked"') == 2
    assert 'Revealed type is "sagas_framework.steps.LocalStep[typing_cases.Dinner]"' in said


@pytest.mark.parametrize("case", WRONG)
def test_a_type_checker_names_the_line_of(case: str, tmp_path: Path) -> None:
    errors, said = check(tmp_path, WRONG[case])

    assert errors == meant(WRONG[case]), said
