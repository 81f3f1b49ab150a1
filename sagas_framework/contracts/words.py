"""What breaks, in sentences: who sends what, who refuses it, and what to do instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sagas_framework.contracts.changes import Change, Effect
from sagas_framework.contracts.documents import Message
from sagas_framework.contracts.fields import ANY_FIELD, EACH, Break, Path, Why
from sagas_framework.contracts.schemas import literal

_ARGUMENTS: Final = 0
_PAYLOAD: Final = (_ARGUMENTS, 1)
_KEYWORDS: Final = 1


@dataclass(frozen=True)
class Way:
    """In which direction a message travels between the two releases.

    Args:
        sender, receiver: who, in the middle of a sentence.
        old_sends: the sender is of the last release, and the receiver is new; else the other way round.
        reply: it answers a command.
    """

    sender: str
    receiver: str
    old_sends: bool
    reply: bool

    @property
    def breaks(self) -> str:
        """Who has not been redeployed, in the plural."""
        kind = (self.sender if self.old_sends else self.receiver).split(" ", 1)[1]
        noun, rest = kind.split(" ", 1)
        return f"{noun}s {rest}"

    @property
    def sends(self) -> str:
        """``a sender of the last release still sends``: the beginning of a sentence."""
        return f"{upper(self.sender)} {'still sends' if self.old_sends else 'sends'}"

    @property
    def refused(self) -> str:
        """``the new restaurant_service refuses it``."""
        return f"{self.receiver} {'cannot read' if self.reply else 'refuses'} it"

    @property
    def later(self) -> str:
        """When what was in use by the last release has gone."""
        messages = "answers" if self.reply else "messages"
        return f"when nobody of the last release runs and none of its {messages} is left"


def of_command(service: str, action: str) -> Way:
    """The way of what an operation of the new *service* sends or receives."""
    if action == "receive":
        return Way("a sender of the last release", f"the new {service}", old_sends=True, reply=False)
    return Way(f"the new {service}", "a receiver of the last release", old_sends=False, reply=False)


def of_reply(service: str, action: str) -> Way:
    """The way of what answers it."""
    if action == "receive":
        return Way(f"the new {service}", "an orchestrator of the last release", old_sends=False, reply=True)
    return Way("a participant of the last release", f"the new {service}", old_sends=True, reply=True)


def broken(way: Way, message: Message, part: str, found: Break) -> Change:
    """A change of a field that breaks somebody.

    Args:
        part: ``payload`` or ``headers``.
    """
    name = field_name(found.path, message, part)
    place = f"the {'header' if part == 'headers' else 'field'} {name}" if name else f"the {part}"
    of_it = f"{place} of {message.key}"
    what, instead = _SENTENCES[found.why](way, message.key, place, of_it, found)
    return Change(
        code=found.why.value,
        effect=Effect.BREAKING,
        pointer=f"{message.pointer}/{part}",
        what=what,
        breaks=way.breaks,
        instead=instead,
        message=message.key,
        field=name,
    )


def _missing(way: Way, message: str, place: str, _of_it: str, _found: Break) -> tuple[str, str]:
    return f"{way.sends} {message} without {place}; {way.refused}.", _optional_first(way, place)


def _maybe_missing(way: Way, _message: str, place: str, of_it: str, _found: Break) -> tuple[str, str]:
    return f"{upper(way.sender)} may leave out {of_it}; {way.receiver} requires it.", _optional_first(
        way, place
    )


def _optional_first(way: Way, place: str) -> str:
    if way.old_sends:
        return f"Give {place} a default here; require it in a later release, {way.later}."
    return (
        f"Keep sending {place}. Make it optional where it is received, and leave it out in a later release, "
        "when that has been deployed everywhere."
    )


def _unknown(way: Way, message: str, place: str, _of_it: str, _found: Break) -> tuple[str, str]:
    instead = (
        f'Ignore what is not known (take extra="forbid" away), or keep {place} until later, {way.later}.'
        if way.old_sends
        else f"Deploy a receiver that knows {place} first; send it in a later release."
    )
    return f"{way.sends} {message} with {place}, which {way.receiver} does not admit.", instead


def _other_type(way: Way, _message: str, _place: str, of_it: str, found: Break) -> tuple[str, str]:
    sent, taken = described(found.sent), described(found.taken)
    return f"{way.sends} {of_it} as {sent}; {way.receiver} takes only {taken}.", _both(way, sent, taken)


def _other_values(way: Way, _message: str, _place: str, of_it: str, found: Break) -> tuple[str, str]:
    sent, taken = found.detail or described(found.sent), described(found.taken)
    return (
        f"{upper(way.sender)} may send {sent} in {of_it}; {way.receiver} takes only {taken}.",
        _both(way, sent, taken),
    )


def _undecided(way: Way, _message: str, _place: str, of_it: str, found: Break) -> tuple[str, str]:
    what = f"whether {way.receiver} takes all that {way.sender} may send in {of_it}: {found.detail}"
    return (
        f"It cannot be told {what}.",
        "Write it in a way that can be compared, or make it a change of a major version.",
    )


def _both(way: Way, sent: str, taken: str) -> str:
    if way.old_sends:
        return f"Take {sent} as before; take only {taken} in a later release, {way.later}."
    return f"Deploy a receiver that takes {sent} first; send it in a later release."


_SENTENCES: Final = {
    Why.MISSING: _missing,
    Why.MAY_BE_MISSING: _maybe_missing,
    Why.UNKNOWN: _unknown,
    Why.TYPE: _other_type,
    Why.FORMAT: _other_type,
    Why.LIMITS: _other_type,
    Why.VALUES: _other_values,
    Why.UNDECIDED: _undecided,
}


# ---- parts of sentences -----------------------------------------------------------------------------


def field_name(path: Path, message: Message, part: str) -> str:
    """The field's name as its class has it: ``items[].quantity``. Empty for the whole.

    In a Celery message that is counted from the payload in the task's arguments; what is elsewhere in the
    body is a JSON path.
    """
    if part == "payload" and _is_celery(message.payload):
        if path[:2] == _PAYLOAD:
            return _dotted(path[2:])
        if path[:1] == (_KEYWORDS,) and len(path) > 1:
            return _dotted(path[1:])
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return _dotted(path)


def _is_celery(payload: Any) -> bool:
    return (
        isinstance(payload, Mapping)
        and payload.get("type") == "array"
        and isinstance(payload.get("items"), list)
        and len(payload["items"]) == 3
    )


def _dotted(path: Path) -> str:
    name = ""
    for step in path:
        if isinstance(step, int):
            name += f"[{step}]"
        elif step == EACH:
            name += step
        else:
            name += ("." if name else "") + ("(any other)" if step == ANY_FIELD else step)
    return name


_LIMITS: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "multipleOf": "a multiple of {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "pattern": "of the pattern {}",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "minProperties": "at least {} fields",
    "maxProperties": "at most {} fields",
    "uniqueItems": "no item twice",
    "format": "{}",
}


def described(schema: Any) -> str:
    """What a schema allows, in a few words: ``string (date)``, ``'a' or 'b'``, ``integer or null``."""
    if schema is False:
        return "nothing"
    if not isinstance(schema, Mapping) or not schema:
        return "any JSON value"
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values:
        return either([literal(value) for value in values])
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            return either(list(dict.fromkeys(described(part) for part in schema[keyword])))
    kinds = schema.get("type", "any JSON value")
    words = kinds if isinstance(kinds, str) else either(kinds)
    if kinds == "object" and isinstance(schema.get("title"), str):
        words = schema["title"]
    limits = [
        text.format(schema[key])
        for key, text in _LIMITS.items()
        if schema.get(key) is not None and schema[key] is not False  # 0 is a limit
    ]
    return f"{words} ({', '.join(limits)})" if limits else words


def either(words: Sequence[str]) -> str:
    """``a``, ``a or b``, ``a, b or c``."""
    *before, last = words
    return f"{', '.join(before)} or {last}" if before else last


def upper(text: str) -> str:
    """With a capital at the beginning."""
    return text[:1].upper() + text[1:]
