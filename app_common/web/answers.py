"""How pages answer, and how bodies are read."""

from __future__ import annotations

import json as json_
from collections.abc import Callable
from typing import Any, Final, TypeVar

from flask import Response, render_template, request
from pydantic import BaseModel
from werkzeug.exceptions import RequestEntityTooLarge

from app_common.web.errors import Refusal
from sagas_framework.console import wants_html

LARGEST_BODY: Final = 64 * 1024
"""Bytes of a request; the longest order of plain letters has about 25,000."""
LIVE: Final = 2000
"""Milliseconds after which a page is asked for again while somebody looks at it."""

M = TypeVar("M", bound=BaseModel)


def page(template: str, json: Callable[[], Any], **context: Any) -> Response:
    """A page, as HTML or as JSON; 304 for who has it already.

    Args:
        template: extends ``saga_console/base.html``; it gets `context`.
        json: gives the same as plain JSON.
    """
    if wants_html():
        response = Response(render_template(template, **context), mimetype="text/html")
    else:
        response = as_json(json())
    return fresh(response)


def as_json(value: Any) -> Response:
    """Plain JSON, in the order in which it was put together."""
    return Response(json_.dumps(value, ensure_ascii=False) + "\n", mimetype="application/json")


def fresh(response: Response) -> Response:
    """It is asked for again and again while somebody looks: 304 while nothing has changed."""
    response.vary.add("Accept")
    response.vary.add("Cookie")
    response.cache_control.no_cache = True
    response.add_etag(weak=True)
    response.make_conditional(request)
    return response


def body(model: type[M], what: str, too_long: str = "Send less at once") -> M:
    """The request's body, which must be JSON.

    Another site's page cannot send that in a visitor's name: a browser asks us first, and we allow it to
    nobody.

    Args:
        what: the body is, for people: ``"an order"``.
        too_long: what to do about a body that is.

    Raises:
        Refusal: it is not JSON, or too long.
        ValidationError: it is not of this shape.
    """
    if not request.is_json:
        told = f"Content-Type is {request.mimetype}" if request.mimetype else "There is no Content-Type"
        raise Refusal(415, f"{told}; {what} is JSON", "Send it with Content-Type: application/json")
    request.max_content_length = LARGEST_BODY
    try:
        return model.model_validate_json(request.get_data())
    except RequestEntityTooLarge:
        raise Refusal(413, f"The body has more than {LARGEST_BODY} bytes", too_long) from None
