"""The API of orders from the stock. A request takes an order, stores a decision or reads; it runs no step."""

from __future__ import annotations

from typing import Annotated

from flask import Response, jsonify, redirect, request, url_for
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.wrappers import Response as BaseResponse

from app_common.texts import Name, isolated
from app_common.web.access import Access
from app_common.web.answers import LIVE, body, fresh, page
from app_common.web.errors import Refusal, problem
from order_service import processing
from order_service.api import idempotency_key
from order_service.approvals import shown
from order_service.orchestrator import sagas
from order_service.processing import NewProcessingOrder, Taken
from order_service.sagas.process_order import Approval
from sagas_framework import Became, Status
from sagas_framework.console import wants_html


class Decision(BaseModel):
    """An approver's decision as it comes in; ``"true"`` is no decision."""

    model_config = ConfigDict(title="decision", extra="forbid")

    approver: Name
    approved: Annotated[bool, Field(strict=True)]


class ProcessingViews:
    """The routes below ``/processing``. Whoever orders or looks needs nothing, whoever approves a token."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def take_order(self) -> Response:
        """Take an order given as JSON."""
        key = idempotency_key()
        new = body(NewProcessingOrder, "an order", "Make more than one order of it")
        return accepted(processing.take(new, key))

    def show_order(self, order_id: str) -> Response:
        """An order as it stands. Whoever asks again with its ETag gets 304 while nothing has changed."""
        order = processing.describe(order_id)
        links = _links(order["id"], order["saga"]["id"])
        ended = Status(order["saga"]["status"]).ended
        return page(
            "processing_order.html",
            lambda: order | {"links": links},
            title=order_id,
            live=None if ended else LIVE,
            live_state="ended" if ended else None,
            order=order,
            links=links,
            **shown(order, sagas.clock()),
        )

    def list_orders(self) -> Response:
        """The orders that wait for an approval."""
        if request.args.get("waiting") != "1":
            raise Refusal(400, "Which orders is not said", "Ask for those that wait: ?waiting=1")
        try:
            found = processing.waiting(after=request.args.get("after"))
        except ValueError as error:
            raise Refusal(400, str(error), "Take the address that the page before gave as next") from None
        orders = [
            order | {"links": {"order": _order(order["id"]), "approve": _approve(order["id"])}}
            for order in found.orders
        ]
        following = found.next and url_for("list_processing_orders", waiting=1, after=found.next)
        return fresh(jsonify(orders=orders, next=following))

    def _decided_on_a_page(self, order_id: str) -> BaseResponse:
        """Take what was clicked, and go where it is told what became of that."""
        if self._access.person is None:
            return redirect(url_for("login"), 303)
        approved = request.form.get("approved")
        try:
            name = self._access.who()
            if approved not in ("true", "false"):
                raise Refusal(422, "Neither yes nor no was said", "Press one of the two buttons")
            processing.decide(order_id, Approval(approver=name, approved=approved == "true"))
        except Refusal as refusal:
            return problem(refusal.status, str(refusal), refusal.do)
        except processing.DecidedAlready:
            pass  # who was quicker, the page says
        return redirect(url_for("show_approvals", order=order_id, approved=approved), 303)

    def approve(self, order_id: str) -> BaseResponse:
        """Take an approver's yes or no.

        Raises:
            Refusal: who approves is not proven, or is not who they say.
        """
        if request.form and wants_html():
            return self._decided_on_a_page(order_id)
        name = self._access.who()
        decision = body(Decision, "a decision")
        if decision.approver != name:
            raise Refusal(
                403,
                f"The token is not that of {isolated(repr(decision.approver))}",
                f"Decide in the name that the token proves: {isolated(repr(name))}",
            )
        approval = Approval(approver=name, approved=decision.approved)
        said = processing.decide(order_id, approval, idempotency_key())
        taken = said.became is Became.TAKEN
        response = jsonify(
            order_id=order_id,
            approver=name,
            approved=decision.approved,
            became=said.became.value,
            message=f"Approval sent for order: {order_id}",
            links={"order": _order(order_id)},
        )
        response.status_code = 200 if taken else 202
        response.cache_control.no_store = True
        return response


def accepted(taken: Taken) -> Response:
    """202: the order is taken, and its saga decides."""
    links = _links(taken.order_id, taken.saga_id)
    response = jsonify(
        order_id=taken.order_id,
        saga_id=taken.saga_id,
        message=f"Order received. ID = '{taken.order_id}'",
        links=links,
    )
    response.status_code = 202
    response.cache_control.no_store = True
    response.headers["Location"] = links["order"]
    return response


def _links(order_id: str, saga_id: str) -> dict[str, str]:
    return {
        "order": _order(order_id),
        "approve": _approve(order_id),
        "saga": url_for("sagas.show_saga", saga_id=saga_id),
    }


def _order(order_id: str) -> str:
    return url_for("show_processing_order", order_id=order_id)


def _approve(order_id: str) -> str:
    return url_for("approve_processing_order", order_id=order_id)
