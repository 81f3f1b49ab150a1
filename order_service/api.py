"""The API: orders taken and told as JSON. A request takes an order or reads rows; it never runs a step."""

from __future__ import annotations

import re
from typing import Final

from flask import Response, jsonify, request, url_for

from app_common.web.answers import body
from app_common.web.errors import Refusal
from order_service.orders import NewOrder, Placed, describe_order, place

LONGEST_KEY: Final = 200
"""Characters of an idempotency key."""

_KEY_HEADER: Final = "Idempotency-Key"
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def ping() -> Response:
    return Response("ping response", mimetype="text/plain")


def take_order() -> Response:
    """Take an order given as JSON; dishes and numbers that decide how it ends are in `magic`.

    Another site's page cannot post here in a visitor's name: a browser sends `application/json` across
    sites only after asking us (OPTIONS), and we allow it to nobody. There is no cookie to misuse either.
    """
    key = idempotency_key()
    return accepted(place(body(NewOrder, "an order", "Make more than one order of it"), key))


def accepted(placed: Placed) -> Response:
    """202: the order is taken, and its saga decides. The same ids are always told in the same words."""
    links = _links(placed.order_id, placed.saga_id)
    response = jsonify(order_id=placed.order_id, saga_id=placed.saga_id, links=links)
    response.status_code = 202
    response.cache_control.no_store = True
    response.headers["Location"] = links["saga"]
    return response


def show_order(order_id: str) -> Response:
    """An order as it stands. Whoever asks again with its ETag gets 304 while nothing has changed."""
    order = describe_order(order_id)
    links = _links(order["id"], order["saga"] and order["saga"]["id"])
    response = jsonify(order | {"links": links})
    response.cache_control.no_cache = True
    response.add_etag()
    response.make_conditional(request)
    return response


def idempotency_key() -> str | None:
    """The request's key, None if it has none.

    The header is a quoted string; as many clients send it without the quotes, both are taken, and
    are the same key.

    Reference:
        "The Idempotency-Key HTTP Header Field", draft-ietf-httpapi-idempotency-key-header, section 2.1;
        strings are those of RFC 9651, section 3.3.3.

    Raises:
        Refusal: it cannot be used.
    """
    given = request.headers.get(_KEY_HEADER)
    if given is None:
        return None
    key = given.strip()
    if key.startswith('"'):
        if (quoted := _QUOTED.fullmatch(key)) is None:
            raise _bad_key("is not one quoted string")
        key = re.sub(r'\\(["\\])', r"\1", quoted[1])
    if not key:
        raise _bad_key("is empty")
    if len(key) > LONGEST_KEY:
        raise _bad_key(f"has {len(key)} characters, and {LONGEST_KEY} at most can be kept")
    if not (key.isascii() and key.isprintable()):
        raise _bad_key("has characters that are not printable ASCII")
    return key


def _bad_key(problem: str) -> Refusal:
    return Refusal(
        400,
        f"The {_KEY_HEADER} {problem}",
        f"Make one key for each order, such as a UUID, and send it with every try: "
        f'{_KEY_HEADER}: "8e03978e-40d5-43e8-bc93-6894a57f9324"',
    )


def _links(order_id: int, saga_id: str | None) -> dict[str, str]:
    """Where to look; without the saga once it has gone to the archive."""
    links = {"order": url_for("show_order", order_id=order_id)}
    if saga_id is not None:
        links["saga"] = url_for("sagas.show_saga", saga_id=saga_id)
    return links
