"""A console over a service on a SQLite file: sagas brought into every state, and pages as people see them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from flask import Flask
from flask.testing import FlaskClient
from pydantic import Field, SecretStr
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from sagas_framework import Queue, Sagas
from sagas_framework.console import console
from sagas_framework.core.events import ReplyReceived
from sagas_framework.core.events import Result as Answer
from sagas_framework.core.instance import SagaInstance
from sagas_framework.messages import Command, Message, Reply, Service
from sagas_framework.saga import Saga, Steps
from sagas_framework.steps import NOTHING_TO_UNDO
from tests.unit.cli.shop import Shop, orchestrator_of
from tests.unit.core.stories import NOON, REPLIES, CreateOrderSaga, DeliverOrderSaga, OrderState, error_of
from tests.unit.core.test_without_inbox import ANSWERS, BakerySaga

HTML: Final = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

# ---- a saga with secrets, and with a reply of many kinds of fields ---------------------------------

courier_service = Service("courier_service")


class Box(Message):
    label: str
    pin: SecretStr = SecretStr("")


class Booked(Reply):
    """All that a reply may hold."""

    number: int
    name: str
    price: float = 0.0
    insured: bool = False
    boxes: list[Box] = Field(default_factory=list)
    access_token: str | None = None


class Look(Command[None], service=courier_service, name="look"):
    address: str


class Book(Command[Booked], service=courier_service, name="book"):
    address: str
    card_pan: str
    door: SecretStr = SecretStr("")


class ParcelState(OrderState):
    password: str = "hunter2"
    company: str = "Acme"
    number: int | None = None
    box: Box = Box(label="b-1")


def remember(state: ParcelState, reply: Booked) -> None:
    state.number = reply.number


def tidy(state: ParcelState, session: Session) -> None:
    state.order = "tidied"


parcel = Steps(ParcelState)


class ParcelSaga(Saga[ParcelState], name="parcel", version=3):
    """Send a parcel."""

    look = parcel.command(Look, lambda state: Look(address=state.address), compensation=NOTHING_TO_UNDO)
    agree = parcel.local(tidy, pivot=True)
    book = parcel.command(
        Book, lambda state: Book(address=state.address, card_pan="4111"), on_success=remember
    )


ANY_REPLY: Final[Mapping[str, Any]] = {**ANSWERS, **REPLIES}


class Counter(Shop):
    """The shop, seen through a console that is mounted under ``/sagas``."""

    def __init__(self, folder: Path, sagas: Sequence[type[Saga[Any]]] | None = None, **console_: Any) -> None:
        self.folder = folder
        self.module = SimpleNamespace(time=[NOON])
        self.sagas = self.declaring(sagas or [CreateOrderSaga, DeliverOrderSaga, BakerySaga, ParcelSaga])
        self.sagas.upgrade()
        self.orchestrator = orchestrator_of(self.sagas)
        self.client = self.mounted(self.sagas, **{"operators": ["maria", "jo"], **console_})

    def declaring(self, sagas: Sequence[type[Saga[Any]]]) -> Sagas:
        """The same database, seen by a process that declares these sagas."""
        return Sagas(
            "order_service",
            f"sqlite:///{self.folder}/orders.sqlite3",
            sagas=sagas,
            reply_queue=Queue("order_service.replies"),
            clock=lambda: self.module.time[0],
        )

    @staticmethod
    def mounted(sagas: Sagas, **console_: Any) -> FlaskClient:
        """A browser in front of an application with this console."""
        app = Flask("platform")
        app.secret_key = "not for production"
        app.register_blueprint(console(sagas, **console_), url_prefix="/sagas")
        return app.test_client()

    # ---- sagas ------------------------------------------------------------------------------------

    def begin(self, saga: type[Saga[Any]], state: OrderState, key: str | None = "order-1") -> str:
        """Start any saga, and let the orchestrator take it up."""
        with self.sagas.engine.begin() as connection:
            run = self.sagas.start(saga, state, key=key, session=connection)
        self.orchestrator.fire_timers({})
        return run.id

    def replies(
        self, saga_id: str, step: str, result: Answer, payload: Any = None, error: str = ""
    ) -> SagaInstance:
        """The participant answers what this step has in flight."""
        flight = self.sagas.get(saga_id).steps[step].flight
        assert flight is not None
        if payload is None and flight.kind == "do" and result is Answer.SUCCESS:
            payload = ANY_REPLY.get(step)
        told = error_of(error) if error else {}
        reply = ReplyReceived(saga_id, self.now, (flight.message_id,), flight.task, result, payload, told)
        assert self.orchestrator.process([reply]) == []
        return self.sagas.get(saga_id)

    def goes_to(self, saga_id: str, step: str) -> str:
        """Every step succeeds until this one's command is in flight."""
        while (name := self.flight(saga_id)[0]) != step:
            self.replies(saga_id, name, Answer.SUCCESS)
        return saga_id

    def two_parked(self, key: str = "order-1") -> str:
        """A saga with two steps that could not be undone."""
        saga_id = self.until("approve_restaurant_ticket", key)
        self.refuses(saga_id, "KitchenGone")
        for step in ("authorize_card", "create_restaurant_ticket"):
            while not self.sagas.get(saga_id).steps[step].parked:
                if self.sagas.get(saga_id).steps[step].flight is None:
                    self.after(60)
                else:
                    self.replies(saga_id, step, Answer.FAILED, error="Offline")
        return saga_id

    def compensated(self, key: str = "order-1") -> str:
        saga_id = self.until("authorize_card", key)
        self.refuses(saga_id)
        self.succeeds(saga_id)
        assert self.sagas.get(saga_id).status.ended
        return saga_id

    def parcel_refused(self, key: str = "parcel-1", **state: Any) -> str:
        """A step after the pivot was refused; completing it needs a reply."""
        saga_id = self.goes_to(self.begin(ParcelSaga, ParcelState(**state), key), "book")
        self.refuses(saga_id, "NoCourier")
        return saga_id

    # ---- pages ------------------------------------------------------------------------------------

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(f"/sagas/{path}", headers={**HTML, **headers})

    def page(self, path: str, status: int = 200) -> Page:
        """The page as a person sees it."""
        response = self.get(path)
        assert response.status_code == status, response.text
        return Page.of(response)

    def as_json(self, path: str) -> Any:
        response = self.client.get(f"/sagas/{path}", headers={"Accept": "application/json"})
        assert response.status_code == 200, response.text
        return response.json

    def press(self, page: Page, button: str, **typed: str) -> TestResponse:
        """Fill in the form in which this button is, and press it. `typed`: ``__`` stands for a colon."""
        form = next(form for form in page.forms if button in form.buttons)
        named = {name.replace("__", ":"): value for name, value in typed.items()}
        unknown = set(named) - set(form.fields)
        assert not unknown, f"the form has no {unknown}; it has {set(form.fields)}"
        values = {**form.filled, **named, "act": button}
        return self.client.post(form.action, data=values, headers=HTML)

    def act(self, saga_id: str, **asked: Any) -> TestResponse:
        """Act as a program does."""
        return self.client.post(f"/sagas/{saga_id}/acts", json=asked, headers={"Accept": "application/json"})


# ---- looking at a page ----------------------------------------------------------------------------


@dataclass
class Form:
    """`fields`: all that can be typed or ticked, with what stands there; `buttons`: value -> label."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    ticked: set[str] = field(default_factory=set)
    boxes: set[str] = field(default_factory=set)
    buttons: dict[str, str] = field(default_factory=dict)

    @property
    def filled(self) -> dict[str, str]:
        """What would be sent as it stands."""
        return {n: v for n, v in self.fields.items() if n not in self.boxes or n in self.ticked}


class Page(HTMLParser):
    """What is on a page: its text without markup, its forms and links."""

    @classmethod
    def of(cls, response: TestResponse) -> Page:
        page = cls(response.text)
        page.close()
        return page

    def __init__(self, html: str) -> None:
        super().__init__()
        self.html = html
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.ids: list[str] = []
        self._texts: list[str] = []
        self._button = ""
        self._area = ""
        self._link = ""
        self.feed(html)

    @property
    def text(self) -> str:
        return " ".join("".join(self._texts).split())

    def region(self, name: str) -> str:
        """The text of a region that is kept live."""
        parts = re.split(r"(?=<[a-z]+[^>]*\bdata-live\b)", self.html)
        (part,) = [p for p in parts if re.match(rf'<[a-z]+[^>]*\bid="{name}"', p)]
        return Page(part).text

    @property
    def buttons(self) -> dict[str, str]:
        return {value: label for form in self.forms for value, label in form.buttons.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        its = {name: value or "" for name, value in attrs}
        if "id" in its:
            self.ids.append(its["id"])
        if tag == "form":
            self.forms.append(Form(its["action"]))
        elif tag == "a":
            self._link = its.get("href", "")
        elif tag == "button" and "name" in its:
            self._button = its["value"]
            self.forms[-1].buttons[self._button] = ""
        elif tag == "textarea":
            self._area = its["name"]
            self.forms[-1].fields[self._area] = ""
        elif tag == "input" and "name" in its:
            form = self.forms[-1]
            form.fields[its["name"]] = its.get("value", "")
            if its.get("type") == "checkbox":
                form.boxes.add(its["name"])
                if "checked" in its:
                    form.ticked.add(its["name"])
        self._texts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        if tag == "button":
            self._button = ""
        elif tag == "textarea":
            self._area = ""
        elif tag == "a":
            self._link = ""
        self._texts.append(" ")

    def handle_data(self, data: str) -> None:
        if self._area:
            self.forms[-1].fields[self._area] += data
        if self._button:
            self.forms[-1].buttons[self._button] += data
        if self._link and data.strip():
            self.links[data.strip()] = self._link
        self._texts.append(data)
