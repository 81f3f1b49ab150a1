"""The docs site of a service: a page that people read, and the document that programs read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Final

from flask import Flask, Response, jsonify, render_template, request, send_file
from werkzeug.exceptions import NotFound

from sagas_framework.asyncapi.renderer import Renderer
from sagas_framework.asyncapi.specification import Specification
from sagas_framework.asyncapi.system import Neighbour, System

Link = tuple[str, str | Callable[[], str]]
"""A name, and an address or what gives it while a request is answered."""

_POLICY: Final = "; ".join(
    [
        "default-src 'self'",
        "script-src 'self' 'unsafe-eval'",  # the renderer compiles JSON schemas to functions
        "style-src 'self' 'unsafe-inline'",  # and sets styles on elements
        "img-src 'self' data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "object-src 'none'",
    ]
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def docs_site(
    specification: Specification,
    *,
    others: Iterable[Specification] = (),
    address: Callable[[str], str] | None = None,
    links: Sequence[Link] = (),
    renderer: Path | str | None = None,
    install: str | None = None,
) -> Flask:
    """A small Flask application that shows a service's document.

    ::

        site = docs_site(specification, renderer="node_modules/@asyncapi/react-component")
        waitress.serve(site, port=8083)

    | path | |
    |---|---|
    | ``/`` | the page, drawn in the browser by ``@asyncapi/react-component`` |
    | ``/asyncapi.yaml``, ``/asyncapi.json`` | the document |
    | ``/healthz`` | 200 while it serves |

    All addresses in the page are relative, so it may be mounted under any prefix; it asks no other host
    for anything. Without the renderer the document is served all the same, and ``/`` answers 503 and
    says how to install it.

    Args:
        others: of the services that it may talk with. The page links to those with which it does.
        address: of the docs site of one of them, by its name; without it they are named, not linked.
        links: further ones, such as to a picture of the whole system.
        renderer: folder of the npm package ``@asyncapi/react-component``, or of ``index.js`` and
            ``default.min.css`` of it.
        install: the command that puts it there, told where it is missing.
    """
    drawing = Renderer(renderer, install)
    every = (specification, *others)
    site = Flask(__name__, static_url_path="/-")

    # Kept: writing YAML takes a third of a second for what is the same each time.
    as_text = cache(lambda form: specification.yaml() if form == "yaml" else specification.json())

    @cache
    def neighbours() -> list[Neighbour]:
        system = System.of({one.service: one.document for one in every})
        return system.neighbours(specification.service)

    @site.get("/")
    def page() -> Response:
        body = render_template(
            "asyncapi/page.html",
            specification=specification,
            neighbours=[(one, address(one.name) if address else None) for one in neighbours()],
            links=[(name, found() if callable(found) else found) for name, found in links],
            missing=None if drawing.there else drawing.install,
        )
        return _tagged(Response(body, 200 if drawing.there else 503, mimetype="text/html"))

    @site.get("/asyncapi.yaml")
    def as_yaml() -> Response:
        return _tagged(Response(as_text("yaml"), mimetype="application/yaml"))

    @site.get("/asyncapi.json")
    def as_json() -> Response:
        return _tagged(Response(as_text("json"), mimetype="application/json"))

    @site.get("/assets/<name>")
    def asset(name: str) -> Response:
        file = drawing.file(name)
        if file is None:
            raise NotFound
        return send_file(file, max_age=0)  # asked for with its ETag, so 304 unless it was installed anew

    @site.get("/healthz")
    def healthz() -> Response:
        return jsonify({"service": specification.service, "healthy": True, "renderer": drawing.there})

    @site.errorhandler(NotFound)
    def not_found(_: Exception) -> Response:
        error = f"There is nothing at {request.path}"
        if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
            root = "../" * (request.path.count("/") - 1) or "./"
            body = render_template(
                "asyncapi/nothing.html", specification=specification, error=error, root=root
            )
            response = Response(body, mimetype="text/html")
        else:
            response = jsonify(error=error, do="Look at /, /asyncapi.yaml or /asyncapi.json")
        response.status_code = 404
        return response

    @site.after_request
    def harden(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    return site


def _tagged(response: Response) -> Response:
    """304 for who has it already."""
    if response.status_code == 200:
        response.set_etag(hashlib.sha256(response.get_data()).hexdigest()[:32])
        response.cache_control.no_cache = True
        response.make_conditional(request)
    else:
        response.cache_control.no_store = True
    return response
