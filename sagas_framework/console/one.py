"""The page of one saga: where it stands, why, and what can be done about it; its acts and its signals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from sagas_framework.console import answers
from sagas_framework.console.asking import Given, MovedOn, choose
from sagas_framework.console.choices import Choice
from sagas_framework.console.desk import Desk
from sagas_framework.console.guard import Signed
from sagas_framework.console.lines import Line as ListLine
from sagas_framework.console.problem import Problem
from sagas_framework.console.shown import Line, act_json, history_lines, masked_json, masked_line, pace, shown
from sagas_framework.console.signals import Said, SignalForm, became_in_words, refused, said
from sagas_framework.console.steps import masked_signal
from sagas_framework.core.events import Act
from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.errors import SagasError, UnknownRun
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import ActRow, Became, HistoryLine, SignalRow, is_storable
from sagas_framework.storage.reads import read_stamp
from sagas_framework.view import SagaView, act_to_json, signal_to_json, summary

PATIENCE: Final = timedelta(seconds=2)
"""How long a POST waits for an orchestrator to take the act; a running one does within a second."""
REFRESH: Final = 5
"""Seconds after which a page without forms is loaded again where scripts do not run."""


@dataclass(frozen=True)
class Notice:
    """What became of an act, or why it was not even stored.

    Args:
        tone: ``done``, ``stored``, ``refused`` or ``not`` (not even stored).
        lines: what happened since it was decided on, oldest first.
    """

    tone: str
    text: str
    do: str = ""
    lines: Sequence[Line] = ()


def add_saga_routes(blueprint: Blueprint, desk: Desk) -> None:
    """The page of one saga, under its id; and its acts."""

    @blueprint.get("/<path:saga_id>")
    def show_saga(saga_id: str) -> BaseResponse:
        stamp = _stamp(desk, saga_id)
        if stamp is None:
            return _meant(desk, saga_id)
        status, version = stamp
        tag = answers.etag(desk, version, now=None if status.ended else desk.sagas.clock())
        if (known := answers.unchanged(tag)) is not None:
            return known
        view = desk.sagas.view(saga_id)
        act = _asked_for(desk, view)
        if request.args.get("format") == "json":
            response = answers.as_json(_to_json(desk, view, act))
            response.set_etag(tag, weak=True)
            return response
        return _page(desk, view, act=act, tag=tag)

    @blueprint.get("/<saga_id>/acts")
    @blueprint.get("/<saga_id>/signals")
    def posted_to_saga(saga_id: str) -> BaseResponse:
        # Where somebody is who loads the answer to a form again.
        return redirect(url_for(".show_saga", saga_id=saga_id), 302)

    @blueprint.post("/<saga_id>/acts")
    def act_on_saga(saga_id: str) -> BaseResponse:
        view, given, signed, wrong = _posted(desk, saga_id)
        try:
            chosen = choose(view, given)
        except Problem as problem:
            return _not_stored(desk, view, problem, given)
        if wrong or chosen.wrong:
            return _incomplete(desk, view, chosen.choice, {**wrong, **chosen.wrong}, given)
        number = desk.sagas.act(
            saga_id,
            Act(chosen.choice.act),
            by=signed.by,
            reason=signed.reason,
            revision=chosen.revision,
            step=chosen.choice.step,
            reply=chosen.reply,
            force=chosen.force,
            until=chosen.until,
        )
        row = desk.sagas.act_answer(number, within=PATIENCE)
        if answers.wants_html():
            return answers.see_other(url_for(".show_saga", saga_id=saga_id, act=number))
        status = 202 if row.handled_at is None else 409 if row.refused else 200
        after = desk.sagas.view(saga_id)
        told = act_json(row, after, _since(after, row), summary(after.instance), desk.mask)
        return answers.as_json(told | {"why": after.why}, status)

    @blueprint.post("/<saga_id>/signals")
    def signal_saga(saga_id: str) -> BaseResponse:
        view, given, signed, wrong = _posted(desk, saga_id)
        try:
            if (name := given.fields.get("signal")) in desk.said_at:
                raise Problem(
                    403, f"{name} is not said here", "Say it on the page that the application has for it"
                )
            told = said(view, given)
            if not (wrong or told.wrong):
                row = _say(desk, view, told, signed)
        except Problem as problem:
            return _not_stored(desk, view, problem, given)
        if wrong or told.wrong:
            return _incomplete(desk, view, told.form, {**wrong, **told.wrong}, given)
        if answers.wants_html():
            return answers.see_other(url_for(".show_saga", saga_id=saga_id, signal=row.id))
        status = 409 if row.too_late else 200 if row.became is Became.TAKEN else 202
        after = desk.sagas.view(saga_id)
        heard = masked_signal(view.saga, signal_to_json(row), desk.mask)
        return answers.as_json(heard | {"instance": summary(after.instance), "why": after.why}, status)


def _posted(desk: Desk, saga_id: str) -> tuple[SagaView, Given, Signed, dict[str, str]]:
    """The saga that a form is about, what the form says, who signs it, and what is wrong with the signature.

    Raises:
        Problem: the form is not one of ours, or cannot be read.
        UnknownRun: there is no such saga.
    """
    desk.guard.check()
    given = Given.of(request)
    if not is_storable(saga_id):
        raise UnknownRun(saga_id)
    view = desk.sagas.view(saga_id)
    signed, wrong = desk.guard.sign(given.fields)
    return view, given, signed, wrong


def _say(desk: Desk, view: SagaView, told: Said, signed: Signed) -> SignalRow:
    """Store it, and wait a moment for what becomes of it."""
    instance = view.instance
    try:
        stored = desk.sagas.signal(
            instance.saga,
            (told.form.name, told.payload),
            key=instance.key,
            id=told.id,
            by=signed.by,
            reason=signed.reason,
        )
    except SagasError as error:
        raise refused(error) from None
    return desk.sagas.signal_answer(stored.id, within=PATIENCE)


# ---- the page -------------------------------------------------------------------------------------


def _page(
    desk: Desk,
    view: SagaView,
    *,
    act: ActRow | None = None,
    notice: Notice | None = None,
    given: Given | None = None,
    chosen: Choice | SignalForm | None = None,
    wrong: Mapping[str, str] | None = None,
    status: int = 200,
    tag: str | None = None,
) -> Response:
    """The page, or the same after something that was not stored, with what was typed."""
    again = given is not None
    page = shown(view, desk.mask, all_lines=request.args.get("history") == "all")
    if isinstance(chosen, SignalForm):
        page = replace(page, signals=[chosen if s.name == chosen.name else s for s in page.signals])
    elif chosen is not None:
        page = replace(page, choices=[chosen if c.value == chosen.value else c for c in page.choices])
    live = None if again else pace(view)
    return answers.page(
        "saga_console/saga.html",
        lambda: _to_json(desk, view, act),
        title=f"{view.instance.key} {view.instance.status.value}",
        status=status,
        live=live,
        refresh=None if live is None or desk.guard.acting else REFRESH,
        live_state="ended" if view.instance.status.ended else None,
        tag=tag,
        s=page,
        hides=desk.mask.hides,
        notice=notice or _notice(desk, view, act),
        typed={} if given is None else given.fields,
        wrong=wrong or {},
    )


def _notice(desk: Desk, view: SagaView, act: ActRow | None) -> Notice | None:
    """What became of what was asked or said last, as the address names it."""
    if act is not None:
        return _became(view, act, desk)
    row = _said(desk, view)
    return None if row is None else Notice(*became_in_words(row))


def _to_json(desk: Desk, view: SagaView, act: ActRow | None) -> dict[str, Any]:
    told = masked_json(view, desk.mask)
    return told if act is None else told | {"act": act_to_json(act)}


def _stamp(desk: Desk, saga_id: str) -> tuple[Status, tuple[object, ...]] | None:
    if not is_storable(saga_id):
        return None
    with reading(desk.sagas.engine) as connection:
        return read_stamp(connection, saga_id)


def _meant(desk: Desk, named: str) -> BaseResponse:
    """To the page of the saga that is meant: by its key, or by the beginning of its id."""
    found: Sequence[SagaInstance] = []
    if is_storable(named):
        found = desk.sagas.find(named) or desk.sagas.find(named.rstrip("/"))
    if not found:
        raise Problem(
            404,
            f"No saga has the id or the key {named!r} in this database",
            "Look for it in the list of sagas; the beginning of an id needs at least 4 of its letters",
        )
    if len(found) == 1:
        return redirect(url_for(".show_saga", saga_id=found[0].id, **_kept()), 302)
    return answers.page(
        "saga_console/several.html",
        lambda: {"sagas": [summary(instance) for instance in found]},
        title=named,
        status=300,
        named=named,
        lines=[ListLine(each) for each in desk.sagas.views(found)],
    )


def _kept() -> dict[str, Any]:
    """What of the address is asked of the page, whoever is meant."""
    return {name: request.args[name] for name in ("format", "history") if name in request.args}


# ---- acts -----------------------------------------------------------------------------------------


def _asked_for(desk: Desk, view: SagaView) -> ActRow | None:
    """The act of ``?act=``; None if it is not one of this saga's."""
    number = _number("act")
    try:
        act = None if number is None else desk.sagas.act_answer(number)
    except SagasError:
        return None
    return act if act is not None and act.saga_id == view.instance.id else None


def _said(desk: Desk, view: SagaView) -> SignalRow | None:
    """The signal of ``?signal=``; None if it is not one of this saga's."""
    number, instance = _number("signal"), view.instance
    try:
        row = None if number is None else desk.sagas.signal_answer(number)
    except SagasError:
        return None
    return row if row is not None and (row.saga, row.key) == (instance.saga, instance.key) else None


def _number(name: str) -> int | None:
    """A row's number in the address."""
    given = request.args.get(name, "")
    return int(given) if given.isascii() and given.isdecimal() and len(given) <= 18 else None


def _since(view: SagaView, act: ActRow) -> list[HistoryLine]:
    """What happened after the picture on which a refused act was decided."""
    if not act.refused or act.revision is None or view.instance.revision == act.revision:
        return []
    return [line for line in view.history if line.revision > act.revision]


def _became(view: SagaView, act: ActRow, desk: Desk) -> Notice:
    what = act.act.value + (f" {act.step}" if act.step else "")
    if act.handled_at is None:
        return Notice(
            "stored",
            f"{what}, asked for by {act.by}: no orchestrator has taken it yet.",
            "It is taken when one runs, unless the saga has moved on by then.",
        )
    if act.refused:
        lines = history_lines(view, _since(view, act), desk.mask)
        return Notice("refused", f"{what} was refused: {act.answer}.", lines=lines)
    return Notice("done", f"{what} was taken: {act.answer}.")


def _not_stored(desk: Desk, view: SagaView, problem: Problem, given: Given) -> Response:
    """The saga as it stands, and why nothing was stored."""
    since: list[HistoryLine] = []
    if isinstance(problem, MovedOn):
        since = [line for line in view.history if line.revision > problem.seen]
    if not answers.wants_html():
        told: dict[str, Any] = {"error": problem.error, "do": problem.do}
        if isinstance(problem, MovedOn):
            told |= {
                "saga": summary(view.instance),
                "history": [masked_line(line, view.saga, desk.mask) for line in since],
            }
        return answers.as_json(told, problem.status)
    notice = Notice("not", f"{problem.error}.", f"{problem.do}.", history_lines(view, since, desk.mask))
    return _page(desk, view, notice=notice, given=given, status=problem.status)


def _incomplete(
    desk: Desk,
    view: SagaView,
    chosen: Choice | SignalForm,
    wrong: Mapping[str, str],
    given: Given,
) -> Response:
    """The saga as it stands, with the form as it was filled in and what is wrong with it."""
    error, do = "Nothing was stored: something is missing or wrong", "Look at the marked fields"
    if not answers.wants_html():
        return answers.as_json({"error": error, "do": "See fields", "fields": dict(wrong)}, 400)
    notice = Notice("not", f"{error}.", f"{do}.")
    return _page(desk, view, notice=notice, given=given, chosen=chosen, wrong=wrong, status=400)
