"""The shipping's page and API: ``waitress-serve --call delivery_service.web:create_app``."""

from __future__ import annotations

from typing import Any, Final

from flask import Flask, Response, jsonify, redirect, url_for
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as BaseResponse

from app_common.web.access import Access
from app_common.web.answers import LIVE, page
from app_common.web.app import service_app
from delivery_service import shipping
from delivery_service.handlers import participant
from delivery_service.models import Maintenance, Shipment
from sagas_framework import reading
from sagas_framework.console import wants_html

_SHOWN: Final = 50
"""How many of the last shipments the page shows."""


def create_app() -> Flask:
    """The Flask application."""
    app, access = service_app(__name__, participant, page="show_shipping")
    views = Views(access)
    app.add_url_rule("/", "show_shipping", views.show)
    for verb, active in (("deactivate", True), ("activate", False)):
        app.add_url_rule(
            f"/shipping/{verb}", verb, views.switch, methods=["POST"], defaults={"active": active}
        )
    return app


class Views:
    """The pages. Whoever looks needs nothing, whoever switches a token."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def show(self) -> Response:
        """Whether anything is shipped now, the switch, and what left last."""
        with reading(participant.engine) as connection, Session(connection) as session:
            mode, latest = shipping.maintenance(session), shipping.latest(session, _SHOWN)
            told = _mode_in_json(mode) | {"shipments": [_shipment_in_json(shipment) for shipment in latest]}
        return page("shipping.html", lambda: told, title="Shipping", mode=mode, shipments=latest, live=LIVE)

    def switch(self, active: bool) -> BaseResponse:
        """Turn the maintenance mode on or off. Doing it twice is as good as once.

        Raises:
            Refusal: who asks is not proven.
        """
        who = self._access.who()
        with Session(participant.engine) as session, session.begin():
            shipping.switch(session, active=active, by=who, at=participant.clock())
            told = _mode_in_json(shipping.maintenance(session))
        if wants_html():
            return redirect(url_for("show_shipping"), 303)
        response = jsonify(told)
        response.cache_control.no_store = True
        return response


def _mode_in_json(mode: Maintenance) -> dict[str, Any]:
    return {
        "shipping": not mode.active,
        "message": shipping.DEACTIVATED if mode.active else "Orders are shipped.",
        "switched_by": mode.by,
        "switched_at": mode.at and mode.at.isoformat(),
    }


def _shipment_in_json(shipment: Shipment) -> dict[str, Any]:
    return {
        "id": shipment.id,
        "order_id": shipment.order_id,
        "customer": shipment.customer,
        "items": shipment.items,
        "status": shipment.status.value,
        "at": shipment.at.isoformat(),
    }
