"""``GET /approvals``: the orders that wait for a yes or no, and what was decided lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from flask import Response, request, url_for

from app_common.money import written
from app_common.settings import approval_settings
from app_common.texts import isolated
from app_common.web.access import Access
from app_common.web.addresses import page_address
from app_common.web.answers import LIVE, page
from app_common.web.errors import Refusal
from order_service import processing
from order_service.orchestrator import sagas
from order_service.orders import SagaArchived, UnknownOrder
from order_service.sagas.process_order import ProcessOrderSaga
from sagas_framework import Became, Filter, OutcomeKind, SignalRow
from sagas_framework.console import in_words

LATELY: Final = 8
"""How many decisions are shown."""
OUTCOMES: Final = {
    OutcomeKind.OK: "done",
    OutcomeKind.REFUSED: "refused: somebody said no",
    OutcomeKind.FAILED: "failed: something went wrong",
    OutcomeKind.EXPIRED: "expired: nobody answered in time",
    OutcomeKind.CANCELLED: "cancelled: somebody called it off",
}
_SAGA: Final = ProcessOrderSaga.definition.name
_SOON: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Waits:
    """An order that waits, as the page shows it.

    Args:
        left: the time until the deadline, in words.
        share: of the whole time, in percent.
    """

    order: Mapping[str, Any]
    items: Sequence[tuple[str, int]]
    deadline: datetime
    left: str
    share: int
    soon: bool

    @classmethod
    def of(cls, order: Mapping[str, Any], now: datetime) -> Waits:
        deadline = datetime.fromisoformat(order["deadline"])
        whole = deadline - datetime.fromisoformat(order["created_time"])
        left = max(deadline - now, timedelta(0))
        return cls(
            order,
            processing.counted(order["items"]),
            deadline,
            f"{in_words(left)} left" if left else "any moment now",
            round(100 * min(left / whole, 1)) if whole > timedelta(0) else 0,
            left < min(_SOON, whole / 4),
        )


@dataclass(frozen=True)
class Decision:
    """What became of an order that waited. `by`: None: nobody decided in time."""

    order_id: str
    decision: str
    by: str | None
    at: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "order_id": self.order_id,
            "decision": self.decision,
            "by": self.by,
            "at": self.at.isoformat(),
            "links": {"order": url_for("show_processing_order", order_id=self.order_id)},
        }


@dataclass(frozen=True)
class Told:
    """What became of a click. `tone`: ``done`` or ``refused``."""

    tone: str
    text: str
    order_id: str


class ApprovalViews:
    """The page. Whoever looks needs nothing, whoever decides a token."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def show(self) -> Response:
        """The orders that wait, the nearest deadline first.

        Raises:
            Refusal: ``after`` is not where a page ends.
        """
        try:
            waiting = processing.waiting(after=request.args.get("after"))
        except ValueError as error:
            raise Refusal(400, str(error), "Take the address that the page before gave as next") from None
        now = sagas.clock()
        following = waiting.next and url_for("show_approvals", after=waiting.next)
        lately = decided_lately()
        return page(
            "approvals.html",
            lambda: {
                "waiting": list(waiting.orders),
                "next": following,
                "decided": [one.to_json() for one in lately],
            },
            title="Approvals",
            live=LIVE,
            waiting=[Waits.of(order, now) for order in waiting.orders],
            next=following,
            lately=lately,
            threshold=written(approval_settings().threshold),
            told=self._told(),
        )

    def _told(self) -> Told | None:
        """What became of the decision that the address names: it stays true when it is loaded again."""
        order_id, wanted = request.args.get("order"), request.args.get("approved")
        if not order_id or wanted not in ("true", "false"):
            return None
        return what_became(order_id, approved=wanted == "true", by=self._access.person)


def what_became(order_id: str, *, approved: bool, by: str | None) -> Told | None:
    """What became of somebody's decision; None if there is no such order, or that is long ago.

    Args:
        by: who decided; None: who looks is not logged in any more.
    """
    try:
        order = processing.describe(order_id)
    except (UnknownOrder, SagaArchived):
        return None
    said = processing.decision_of(order_id)
    word = "approved" if approved else "rejected"
    approver = None if said is None else said.payload["approver"]
    if said is not None and by is not None and (approver, said.payload["approved"]) == (by, approved):
        when = "" if said.became is Became.TAKEN else " It counts as soon as the order asks for it."
        return Told("done", f"{word.capitalize()} by you.{when}", order_id)
    if said is not None:
        other = "approved" if said.payload["approved"] else "rejected"
        return Told("refused", f"Too late: {isolated(said.payload['approver'])} has {other} it.", order_id)
    why = order.get("order_result") or order.get("failure_details") or {}
    return Told("refused", f"Too late: {why.get('message') or 'it does not wait any more'}", order_id)


def shown(order: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What the page of an order shows besides what `processing.describe` tells.

    Shape: ``told`` (a sentence), ``tone`` (of the box around it), ``outcome_words``, ``waits`` (a `Waits`
    while it does), ``counted`` (items), ``created``, ``updated``, ``notifications`` (an address).
    """
    approval, details, outcome = order["approval"], order["details"], order["saga"]["outcome"]
    result = order.get("order_result") or order.get("failure_details")
    waits = None
    if approval is not None and approval["waiting"]:
        waits = Waits.of(
            {**details, "created_time": order["created_time"], "deadline": approval["deadline"]}, now
        )
    told = "It waits for an approver." if waits else order["saga"]["why"]
    return {
        "told": result["message"] if result else told,
        "tone": "wait" if waits else order["saga"]["status"],
        "outcome_words": outcome and OUTCOMES[OutcomeKind(outcome["kind"])],
        "waits": waits,
        "counted": processing.counted(details["items"]),
        "created": datetime.fromisoformat(order["created_time"]),
        "updated": datetime.fromisoformat(order["last_updated_time"]),
        "notifications": f"{page_address('notification_service')}?{urlencode({'order': order['id']})}",
    }


def decided_lately() -> list[Decision]:
    """What was decided, and what expired: the newest first."""
    made = [_decision(row) for row in sagas.signals(_SAGA, taken_only=True, limit=LATELY)]
    expired = sagas.list(Filter(saga=_SAGA, outcome=OutcomeKind.EXPIRED, parked_first=False, limit=LATELY))
    made += [
        Decision(saga.key, "expired, undone", None, saga.ended_at)
        for saga in expired
        if saga.outcome is not None and saga.outcome.step == "approval" and saga.ended_at is not None
    ]
    return sorted(made, key=lambda one: one.at, reverse=True)[:LATELY]


def _decision(row: SignalRow) -> Decision:
    word = "approved" if row.payload["approved"] else "rejected, undone"
    return Decision(row.key, word, row.payload["approver"], row.handled_at or row.said_at)
