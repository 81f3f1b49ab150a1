"""Two sets of documents: which belong together, and the verdict on each place where they differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final

from sagas_framework.contracts.changes import Change, Compared, Effect, Report, safe
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.documents import Document, Message
from sagas_framework.contracts.errors import CannotCompare
from sagas_framework.contracts.judging import Judge, LastRelease
from sagas_framework.contracts.listing import differing, listed
from sagas_framework.contracts.structure import Difference, Tools, differences, tools

_NAME: Final = r"[^/]+"
_READ_BY_PEOPLE: Final = re.compile(
    r"/(asyncapi$|info(/|$)|tags(/|$)|components/(tags|externalDocs)(/|$))"
    r"|(^|/)(title|summary|description|tags|externalDocs|examples)(/|$)"
)
"""What only people read."""

_JUDGED: Final = re.compile(
    "^("
    + "|".join(
        (
            rf"/defaultContentType|/servers|/channels|/operations|/components(/{_NAME})?",
            rf"/servers/{_NAME}(/(host|protocol|protocolVersion|pathname))?",
            rf"/channels/{_NAME}(/(address|messages(/.+)?|servers(/.+)?|bindings(/amqp(/.+)?)?|x-{_NAME}(/.+)?))?",
            rf"/operations/{_NAME}(/(action|channel(/.+)?|messages(/.+)?|reply(/.+)?))?",
            rf"/components/(channels|operations|replies|replyAddresses)/{_NAME}(/.+)?",
            rf"/components/(messages|messageTraits)/{_NAME}(/(name|contentType))?",
            rf"/components/(messages|messageTraits)/{_NAME}/(correlationId|headers|payload|traits|bindings)(/.+)?",
            rf"/components/(schemas|correlationIds|messageBindings|channelBindings|servers)/{_NAME}(/.+)?",
        )
    )
    + ")$"
)
"""What `Judge` has looked at: a change there that it does not name changes nothing on the wire."""

_PUBLISHING: Final = re.compile(
    rf"^(/components/operationBindings/{_NAME}|/operations/{_NAME}/bindings)(/.+)?$"
)
_SCHEMAS: Final = re.compile(
    rf"^/components/(schemas|messages/{_NAME}/(payload|headers)|messageTraits/{_NAME}/headers)(/|$)"
)


def compare(
    old: Sequence[Document],
    new: Sequence[Document],
    *,
    admitted: Collection[str] = (),
    by: Tools | None = None,
) -> Report:
    """Say of each change whether it breaks a sender or a receiver that has not been redeployed.

    Args:
        old: the documents of the last release, one for each service.
        new: those of the next one.
        admitted: services that may have no older document, because the last release did not have them.
        by: where node and `@asyncapi/diff` are; looked for, unless given.

    Raises:
        CannotCompare: a document is not as it should be, or a tool is not there.
    """
    before = {document.service: document for document in old}
    after = {document.service: document for document in new}
    if not after:
        raise CannotCompare("There is no new document to compare: generate the documents first.")
    if unknown := sorted(set(admitted) - after.keys()):
        raise CannotCompare(
            f"{', '.join(unknown)}: expected as new, and not among the new documents "
            f"({', '.join(sorted(after))})."
        )
    if already := sorted(set(admitted) & before.keys()):
        raise CannotCompare(
            f"{', '.join(already)}: expected as new, and has an older document. Compare it: leave out what "
            "says that it is new."
        )
    for document in (*old, *new):
        document.see_that_schemas_are_schemas()
    both = sorted(before.keys() & after.keys())
    pairs = [(before[service], after[service]) for service in both]
    structure = differences(pairs, by or tools())
    last = LastRelease(old)
    compared = []
    with Containing() as containing:
        for (older, newer), where in zip(pairs, structure, strict=True):
            judged = list(Judge(older, newer, containing, last).changes())
            rest = list(_rest(older, newer, judged, where))
            compared.append(_compared(older, newer, [*judged, *rest]))
    compared += [_gone(before[service]) for service in sorted(before.keys() - after.keys())]
    return Report(
        compared=sorted(compared, key=lambda one: one.service),
        admitted=sorted(admitted),
        missing={
            service: _no_older(after[service])
            for service in sorted(after.keys() - before.keys() - set(admitted))
        },
    )


def _compared(old: Document, new: Document, changes: Iterable[Change]) -> Compared:
    ordered = sorted(dict.fromkeys(changes), key=lambda change: not change.breaking)
    return Compared(old.service, old.version, new.version, ordered, _has_grown(old, new))


def _has_grown(old: Document, new: Document) -> bool:
    try:
        return new.major > old.major
    except CannotCompare:
        return False  # versions of another kind have no major number that could grow


def _gone(old: Document) -> Compared:
    change = Change(
        "service-removed",
        Effect.BREAKING,
        "",
        f"{old.service} has no new document: who still sends to it, or waits for its answers, is not served.",
        "senders and receivers of the last release",
        "If its document is only missing, generate it. Else keep the service until nobody sends to it, and "
        "take its older document away with it.",
    )
    return Compared(old.service, old.version, "none", [change], major=False)


def _no_older(new: Document) -> str:
    return (
        f"{new.source} has no older document to compare with, so nobody can tell what it "
        f"breaks. If the last release did not have this service, say so: --new-service {new.service}."
    )


# ---- what the list of differences has beside ---------------------------------------------------------


def _rest(
    old: Document, new: Document, judged: Sequence[Change], where: Sequence[Difference]
) -> Iterator[Change]:
    """A verdict on each difference that was not judged already: nothing in the list goes without one."""
    told = [change.pointer for change in judged if change.pointer]
    yield from _changed_messages(old, new, judged)
    people = 0
    for difference in where:
        at = difference.pointer
        if _SCHEMAS.match(at) or any(_within(at, pointer) for pointer in told):
            continue  # schemas are told by message
        if _READ_BY_PEOPLE.search(at):
            people += 1
        elif _PUBLISHING.match(at):
            yield safe("publishing", at, f"How it is published has changed ({at}); the messages have not.")
        elif _JUDGED.match(at) or difference.kind == "non-breaking":
            yield safe("document", at, f"{at} ({difference.action}) changes no message and no queue in use.")
        else:
            yield Change(
                "unknown",
                Effect.BREAKING,
                at,
                f"{at} has changed ({difference.action}; @asyncapi/diff calls it {difference.kind}), and it "
                "is not known here what that does to others.",
                "perhaps senders or receivers of the last release",
                "Undo it, or make it a change of a major version.",
            )
    if people:
        yield safe("documentation", "", f"{_counted(people, 'change')} of what only people read.")


def _within(at: str, pointer: str) -> bool:
    return at == pointer or at.startswith(f"{pointer}/")


def _changed_messages(old: Document, new: Document, judged: Sequence[Change]) -> Iterator[Change]:
    """What changed in the schemas of messages and breaks nobody."""
    told = {(change.pointer, change.field) for change in judged}
    others = {(action, message.key): message for action, message in _all_messages(new)}
    seen: set[str] = set()
    for action, message in _all_messages(old):
        other = others.get((action, message.key))
        if other is None or message.key in seen:
            continue
        seen.add(message.key)
        for part in ("headers", "payload"):
            pointer = f"{message.pointer}/{part}"
            before, after = (
                listed(getattr(one, part), of, one, part) for one, of in ((message, old), (other, new))
            )
            for name, what in differing(before, after, part):
                if (pointer, name) not in told:
                    yield safe(
                        f"{part}-changed",
                        pointer,
                        f"In {message.key} {what}: senders and receivers of both releases understand each "
                        "other.",
                        message=message.key,
                        field=name,
                    )


def _all_messages(document: Document) -> Iterator[tuple[str, Message]]:
    for operation in document.operations:
        for message in operation.messages:
            yield operation.action, message
        for message in operation.reply.messages if operation.reply is not None else ():
            yield operation.action, message


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"
