"""One act on many sagas: a page says first what would happen to each, and asks; then the acts are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, redirect, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from sagas_framework.console import answers
from sagas_framework.console.choices import refusal
from sagas_framework.console.chosen import MOST_AT_ONCE, Chosen, ChosenMany
from sagas_framework.console.desk import Desk
from sagas_framework.console.guard import Signed
from sagas_framework.console.lists import wanted_now
from sagas_framework.console.problem import Problem
from sagas_framework.console.ranges import as_ranges
from sagas_framework.core.events import Act
from sagas_framework.core.instance import Status
from sagas_framework.core.why import count
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import ActRow
from sagas_framework.storage.reads import read_instances
from sagas_framework.view import SagaView


@dataclass(frozen=True)
class Would:
    """What an act would do to a saga now.

    Args:
        consequence: if it would be obeyed; None if not.
        refused: why not; None if it would.
    """

    view: SagaView
    act: Act
    step: str | None
    consequence: str | None
    refused: str | None

    @property
    def chosen(self) -> Chosen:
        return Chosen(self.view.instance.id, self.view.instance.revision, self.step)

    def to_json(self) -> dict[str, Any]:
        instance = self.view.instance
        return {
            "id": instance.id,
            "key": instance.key,
            "saga": instance.saga,
            "status": instance.status.value,
            "revision": instance.revision,
            "step": self.step,
            "consequence": self.consequence,
            "refused": self.refused,
        }


def add_bulk_routes(blueprint: Blueprint, desk: Desk) -> None:
    """``POST /bulk``: asks; and when it is confirmed, stores the acts."""

    @blueprint.get("/bulk")
    def bulk() -> BaseResponse:
        # Where somebody is who loads the question again from its address.
        return redirect(url_for(".list_sagas", **wanted_now(desk).args()), 302)

    @blueprint.post("/bulk")
    def act_on_many() -> BaseResponse:
        desk.guard.check()
        given = ChosenMany.from_request()
        signed, wrong = desk.guard.sign(given.fields)
        if given.confirmed and not wrong:
            return _stored(desk, given, signed)
        return _asked(desk, given, signed, wrong)


def would(view: SagaView, act: Act, step: str | None = None) -> Would:
    """What the act would do, asked of the function that will decide it.

    Args:
        step: of which it is asked; None: the only one it can be.
    """
    if view.saga is None:
        return Would(view, act, step, None, "its declaration is not known here")
    options = [o for o in view.options if o.act is act and step in (None, o.step)]
    plain = [o for o in options if not o.force]
    if len(plain) == 1:
        return Would(view, act, plain[0].step, plain[0].consequence, None)
    if plain:
        steps = ", ".join(str(option.step) for option in plain)
        return Would(view, act, None, None, f"it can be any of {steps}: act on its own page")
    if options:
        return Would(view, act, step, None, "it needs force: act on its own page")
    ended = view.instance.status.ended
    why = f"it has ended ({view.instance.status.value})" if ended else refusal(view, act, step)
    return Would(view, act, step, None, why or "it would not be obeyed")


# ---- asking ---------------------------------------------------------------------------------------


def _asked(desk: Desk, given: ChosenMany, signed: Signed, wrong: dict[str, str]) -> Response:
    """What would happen to each; nothing happens."""
    found, more = _chosen(desk, given)
    if not found:
        raise Problem(
            400,
            "No saga was chosen"
            if not (given.all or given.chosen)
            else "None of these sagas is open any more",
            "Go back, and tick those that you mean, or all that match",
        )
    steps = {one.saga_id: one.step for one in given.chosen}
    each = [would(view, given.act, steps.get(view.instance.id)) for view in found]
    obeyed = [one for one in each if one.refused is None]
    refused = [one for one in each if one.refused is not None]
    missing = wrong if given.confirmed or request.is_json else {}
    # The list asks for both as well, but a script or an old browser may leave them out.
    args = wanted_now(desk).args()
    bad = wrong and (given.confirmed or any(given.fields.values()))
    return answers.page(
        "saga_console/bulk.html",
        lambda: {
            "act": given.act.value,
            "would": [one.to_json() for one in each],
            "more": more,
            "wrong": missing,
            "confirmed": False,
        },
        title=f"{given.act.value.capitalize()} {count(len(obeyed), 'saga', 'sagas')}",
        status=400 if bad else 200,
        act=given.act.value,
        obeyed=obeyed,
        refused=refused,
        more=more,
        most=MOST_AT_ONCE,
        typed=signed,
        wrong=wrong if bad else {},
        args=args,
        back=url_for(".list_sagas", **args),
    )


def _chosen(desk: Desk, given: ChosenMany) -> tuple[Sequence[SagaView], bool]:
    """Those that are meant, and whether there are more than can be acted on at once."""
    if not given.all:
        with reading(desk.sagas.engine) as connection:
            instances = read_instances(connection, [one.saga_id for one in given.chosen])
        return desk.sagas.views(instances), False
    wanted = wanted_now(desk)
    if wanted.key:
        now = desk.sagas.clock()
        found = [i for i in desk.sagas.find(wanted.key) if wanted.fits(i, now) and not i.status.ended]
        return desk.sagas.views(found), False
    if wanted.tab in (Status.COMPLETED, Status.COMPENSATED):
        return [], False
    page = desk.sagas.page(wanted.open_ones(desk.sagas.clock(), MOST_AT_ONCE))
    return page.views, page.next is not None


# ---- storing --------------------------------------------------------------------------------------


def _stored(desk: Desk, given: ChosenMany, signed: Signed) -> BaseResponse:
    """Store the acts, each with the revision that was shown."""
    if not given.chosen:
        raise Problem(400, "No saga was chosen", "Go back, and tick those that you mean")
    if any(one.revision is None for one in given.chosen):
        raise Problem(400, "A saga came without its revision", "Send for each the revision that was shown")
    with reading(desk.sagas.engine) as connection:
        there = {i.id for i in read_instances(connection, [one.saga_id for one in given.chosen])}
    now = desk.sagas.clock()
    numbers = desk.sagas.act_on_many(
        [
            ActRow(0, one.saga_id, given.act, signed.by, signed.reason, now, one.revision, one.step)
            for one in given.chosen
            if one.saga_id in there  # or it ended long ago, and its row was deleted meanwhile
        ]
    )
    gone = len(given.chosen) - len(numbers)
    if not numbers:
        raise Problem(404, "None of these sagas is there any more", "Look for them in the list of sagas")
    address = url_for(".show_acts", numbers=as_ranges(numbers), gone=gone or None)
    if answers.wants_html():
        return answers.see_other(address)
    response = answers.as_json({"acts": numbers, "gone": gone, "confirmed": True, "see": address}, 202)
    response.headers["Location"] = address
    return response
