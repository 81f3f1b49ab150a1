"""``GET /system``: who talks to whom, drawn from the documents of all services."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from typing import Any

from flask import Response, jsonify, render_template, request
from markupsafe import Markup

from app_common.docs_sites import docs_address
from app_common.specifications import specifications
from sagas_framework.asyncapi import Operation, System, draw_system
from sagas_framework.console import wants_html


def show_system() -> Response:
    """The picture with its table, or the same as JSON."""
    system = _system()
    if wants_html():
        page = render_template(
            "system.html",
            title="Who talks to whom",
            system=system,
            picture=Markup(draw_system(system, _address)),  # it escapes its text itself
            address=_address,
            docs=docs_address,
        )
        response = Response(page, mimetype="text/html")
    else:
        response = jsonify(_in_json(system))
    response.vary.add("Accept")
    response.cache_control.no_cache = True
    response.add_etag(weak=True)
    response.make_conditional(request)
    return response


@cache
def _system() -> System:
    """Made when it is first asked for: it imports all services, which nothing else here does."""
    return System.of({one.service: one.document for one in specifications()})


def described_at(task: str) -> str | None:
    """Where the messages of a task are described: on the docs page of whoever receives them."""
    talk = next((talk for talk in _system().talks if talk.channel == task), None)
    return _address(talk.receiver) if talk and talk.receiver else None


def _address(operation: Operation) -> str:
    return f"{docs_address(operation.service)}#{operation.anchor}"


def _in_json(system: System) -> dict[str, Any]:
    return {
        "services": [
            {"name": name, "title": title, "docs": docs_address(name)}
            for name, title in system.titles.items()
        ],
        "channels": [
            {
                "channel": talk.channel,
                "address": talk.address,
                "exchange": talk.exchange,
                "sender": talk.sender and asdict(talk.sender) | {"docs": _address(talk.sender)},
                "receiver": talk.receiver and asdict(talk.receiver) | {"docs": _address(talk.receiver)},
                "replies": list(talk.replies),
                "reply_address": talk.reply_address,
            }
            for talk in system.talks
        ],
    }
