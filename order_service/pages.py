"""What a person looks at, and the buttons. The pages of the sagas themselves are the library's console."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, jsonify, redirect, render_template, url_for
from werkzeug.wrappers import Response as BaseResponse

from app_common.web.access import Access
from app_common.web.addresses import page_address
from app_common.web.answers import fresh
from app_common.web.errors import Refusal
from order_service import processing
from order_service.api import accepted, idempotency_key
from order_service.crossing import refuse_other_sites
from order_service.launches import (
    APPROVALS,
    COMPENSATED,
    COMPLETED,
    CREATE,
    ENDS,
    LAUNCHES,
    LOGIN,
    PARKED,
    PROCESS,
    SAGAS,
    SHIPPING,
    Launch,
    preview,
)
from order_service.orchestrator import sagas
from order_service.orders import NewOrder, place
from order_service.processing import NewProcessingOrder
from order_service.processing_api import accepted as accepted_for_processing
from order_service.sagas.process_order import Approval
from sagas_framework import Filter, SagaPage, Status
from sagas_framework.console import wants_html

_LAST: Final = 8
"""How many of the last sagas the homepage shows."""
_LIVE: Final = 1000  # milliseconds
_ENDPOINTS: Final = {APPROVALS: "show_approvals", LOGIN: "login"}
_ORDERS: Final = {CREATE: "take_order", PROCESS: "take_processing_order"}
_STATUSES: Final = {COMPLETED: Status.COMPLETED, COMPENSATED: Status.COMPENSATED, PARKED: Status.PARKED}


def homepage() -> Response:
    """What there is to launch, and what the last launches came to."""
    last = sagas.page(Filter(parked_first=False, limit=_LAST))
    count = sagas.count()
    if not wants_html():
        return fresh(jsonify(_home_in_json(last, count)))
    page = render_template(
        "home.html",
        title="",
        launches=[(*told, _groups(saga)) for saga, told in SAGAS.items()],
        place=_place,
        last=last.views,
        count={status: count[status] for status in (Status.PARKED, Status.COMPENSATING, Status.RUNNING)},
        live=_LIVE,
        refresh=5,
    )
    return fresh(Response(page, mimetype="text/html"))


def _groups(saga: str) -> list[tuple[str, Status | None, list[Launch]]]:
    """The launches of a saga by their ends: what is said of it, the status if there is one, the launches."""
    found = [
        (ends, _STATUSES.get(ends), [one for one in LAUNCHES if (one.saga, one.ends) == (saga, ends)])
        for ends in ENDS
    ]
    return [group for group in found if group[2]]


def _place(place: str) -> str:
    """The address of one of `PLACES`."""
    return page_address("delivery_service") if place == SHIPPING else url_for(_ENDPOINTS[place])


def show_launch(launch: Launch) -> Response:
    """What a POST to the same path would do. Nothing is launched."""
    told = preview(launch) | {"path": url_for(launch.path)}
    if wants_html():
        page = render_template(
            "launch.html", title=launch.title, launch=told, beside=launch.beside, place=_place
        )
        response = Response(page, mimetype="text/html")
    else:
        response = jsonify(told)
    response.cache_control.no_store = True  # a random order is another each time
    response.vary.add("Accept")
    response.vary.add("Cookie")
    return response


def run(launch: Launch, access: Access) -> BaseResponse:
    """Take the launch's order.

    Raises:
        Refusal: it comes from a page of another origin; or with an idempotency key, which would be
            ignored: a random launch draws another order each time; or it is approved at once, and by whom
            is not proven.
    """
    refuse_other_sites()
    if idempotency_key() is not None:
        raise Refusal(
            400,
            "A launch takes no Idempotency-Key: each POST is another order",
            f"Leave it out, or send the order that GET {url_for(launch.path)} tells to "
            f"POST {url_for(_ORDERS[launch.saga])} with it",
        )
    order = launch.order()
    if not isinstance(order, NewOrder):
        return _process(launch, order, access)
    placed = place(order)
    if wants_html():
        return redirect(url_for("sagas.show_saga", saga_id=placed.saga_id), 303)  # what became of the button
    return accepted(placed)


def _process(launch: Launch, order: NewProcessingOrder, access: Access) -> BaseResponse:
    approval = None
    if launch.approved:
        if wants_html() and access.possible and access.person is None:
            return redirect(url_for("login"), 303)
        approval = Approval(approver=access.who(), approved=True)
    taken = processing.take(order, approve_within=launch.approve_within, approval=approval)
    if wants_html():
        return redirect(url_for("show_processing_order", order_id=taken.order_id), 303)
    return accepted_for_processing(taken)


def _home_in_json(last: SagaPage, count: dict[Status, int]) -> dict[str, Any]:
    return {
        "launches": [
            {
                "path": url_for(launch.path),
                "title": launch.title,
                "saga": launch.saga,
                "ends": launch.ends,
                "shows": launch.shows,
            }
            for launch in LAUNCHES
        ],
        "count": {status.value: number for status, number in count.items()},
        "last": [
            {
                "id": view.instance.id,
                "key": view.instance.key,
                "status": view.instance.status.value,
                "why": view.why,
                "saga": url_for("sagas.show_saga", saga_id=view.instance.id),
            }
            for view in last.views
        ],
        "links": {
            "sagas": url_for("sagas.list_sagas"),
            "approvals": url_for("show_approvals"),
            "system": url_for("show_system"),
            "healthz": url_for("healthz"),
        },
    }
