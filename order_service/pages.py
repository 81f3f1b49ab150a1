"""What a person looks at, and the buttons. The pages of the sagas themselves are the library's console."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, jsonify, redirect, render_template, request, url_for
from werkzeug.wrappers import Response as BaseResponse

from app_common.web.errors import Refusal
from order_service.api import accepted, idempotency_key
from order_service.crossing import refuse_other_sites
from order_service.launches import COMPENSATED, COMPLETED, ENDS, LAUNCHES, PARKED, Launch, preview
from order_service.orchestrator import sagas
from order_service.orders import place
from sagas_framework import Filter, SagaPage, Status
from sagas_framework.console import wants_html

_LAST: Final = 8
"""How many of the last sagas the homepage shows."""
_LIVE: Final = 1000  # milliseconds
_STATUSES: Final = {COMPLETED: Status.COMPLETED, COMPENSATED: Status.COMPENSATED, PARKED: Status.PARKED}


def homepage() -> Response:
    """What there is to launch, and what the last launches came to."""
    last = sagas.page(Filter(parked_first=False, limit=_LAST))
    count = sagas.count()
    if not wants_html():
        return _fresh(jsonify(_home_in_json(last, count)))
    page = render_template(
        "home.html",
        title="",
        groups=[
            (ends, _STATUSES.get(ends), [launch for launch in LAUNCHES if launch.ends == ends])
            for ends in ENDS
        ],
        last=last.views,
        count={status: count[status] for status in (Status.PARKED, Status.COMPENSATING, Status.RUNNING)},
        live=_LIVE,
        refresh=5,
    )
    return _fresh(Response(page, mimetype="text/html"))


def show_launch(launch: Launch) -> Response:
    """What a POST to the same path would do. Nothing is launched."""
    told = preview(launch) | {"path": url_for(launch.path)}
    if wants_html():
        page = render_template("launch.html", title=launch.title, launch=told)
        response = Response(page, mimetype="text/html")
    else:
        response = jsonify(told)
    response.cache_control.no_store = True  # a random order is another each time
    response.vary.add("Accept")
    return response


def run(launch: Launch) -> BaseResponse:
    """Take the launch's order.

    Raises:
        Refusal: it comes from a page of another origin; or with an idempotency key, which would be
            ignored: a random launch draws another order each time.
    """
    refuse_other_sites()
    if idempotency_key() is not None:
        raise Refusal(
            400,
            "A launch takes no Idempotency-Key: each POST is another order",
            f"Leave it out, or send the order that GET {url_for(launch.path)} tells to "
            f"POST {url_for('take_order')} with it",
        )
    placed = place(launch.order())
    if wants_html():
        return redirect(url_for("sagas.show_saga", saga_id=placed.saga_id), 303)  # what became of the button
    return accepted(placed)


def _home_in_json(last: SagaPage, count: dict[Status, int]) -> dict[str, Any]:
    return {
        "launches": [
            {
                "path": url_for(launch.path),
                "title": launch.title,
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
            "system": url_for("show_system"),
            "healthz": url_for("healthz"),
        },
    }


def _fresh(response: Response) -> Response:
    """It is asked for again and again while somebody looks: 304 while nothing has changed."""
    response.vary.add("Accept")
    response.cache_control.no_cache = True
    response.add_etag(weak=True)
    response.make_conditional(request)
    return response
