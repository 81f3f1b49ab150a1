"""The stock's page and API: ``waitress-serve --call inventory_service.web:create_app``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from flask import Flask, Response, jsonify, redirect, request, url_for
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session
from werkzeug.wrappers import Response as BaseResponse

from app_common.texts import Name
from app_common.web.access import Access
from app_common.web.answers import LIVE, body, fresh, page
from app_common.web.app import service_app
from app_common.web.errors import Refusal
from inventory_service import stock
from inventory_service.handlers import participant
from sagas_framework import reading
from sagas_framework.console import wants_html


class Restocking(BaseModel):
    """More of an item."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    quantity: Annotated[int, Field(strict=True, gt=0, le=stock.MOST)]


def create_app() -> Flask:
    """The Flask application."""
    app, access = service_app(__name__, participant, page="show_stock")
    views = Views(access)
    app.add_url_rule("/", "show_stock", views.show)
    app.add_url_rule("/inventory", "show_inventory", views.inventory)
    app.add_url_rule("/inventory/restock", "restock", views.restock, methods=["POST"])
    return app


class Views:
    """The pages. Whoever looks needs nothing, whoever restocks a token."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def show(self) -> Response:
        """How many there are of each item, and the form that puts in more."""
        with _looking() as session:
            there, held = stock.available(session), stock.reserved(session)
        rows = [
            {"item": item, "available": number, "reserved": held.get(item, 0), "low": number < stock.LOW}
            for item, number in there.items()
        ]
        return page("stock.html", lambda: {"stock": rows}, title="Stock", stock=rows, live=LIVE)

    def inventory(self) -> Response:
        """How many there are, by item."""
        with _looking() as session:
            return fresh(jsonify(stock.available(session)))

    def restock(self) -> BaseResponse:
        """Put in more of an item; without a body, fill up every one.

        Raises:
            Refusal: who asks is not proven; or there is no such item, or no room for so many.
        """
        self._access.who()
        wanted = _wanted()
        with Session(participant.engine) as session, session.begin():
            try:
                if wanted is None:
                    stock.fill_up(session)
                else:
                    stock.restock(session, wanted.name, wanted.quantity)
            except stock.UnknownItem as error:
                raise Refusal(404, str(error), "Restock what is in the catalogue; see /inventory") from None
            except stock.TooMany as error:
                raise Refusal(409, str(error), "Put in less") from None
        if wants_html():
            return redirect(url_for("show_stock"), 303)
        return self.inventory_now()

    @staticmethod
    def inventory_now() -> Response:
        """How many there are, not to be kept."""
        with _looking() as session:
            response = jsonify(stock.available(session))
        response.cache_control.no_store = True
        return response


def _wanted() -> Restocking | None:
    """What the body asks for; None: there is none.

    Raises:
        Refusal, ValidationError: it cannot be read.
    """
    if request.form:
        given: dict[str, Any] = {"name": request.form.get("name"), "quantity": request.form.get("quantity")}
        if request.form.get("all"):
            return None
        number = given["quantity"] or ""
        if number.isascii() and number.isdecimal() and len(number) < 10:  # as a form says a number
            given["quantity"] = int(number)
        return Restocking.model_validate(given)
    if not request.content_length and not request.is_json:
        return None
    return body(Restocking, "what is put in")


@contextmanager
def _looking() -> Iterator[Session]:
    with reading(participant.engine) as connection, Session(connection) as session:
        yield session
