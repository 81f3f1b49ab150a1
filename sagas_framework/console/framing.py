"""The frame of the console's pages, for applications that have pages and no sagas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flask import Blueprint, Response, current_app, request, url_for
from flask.blueprints import BlueprintSetupState

from sagas_framework.console.desk import RELEASE, Link, resolved, utc

FRAMED: Final = "saga_console"
"""The application's extension that says whose frame its own pages have."""


@dataclass(frozen=True)
class PlainFrame:
    """What the templates know as ``console`` where there is none: all that `base.html` asks for.

    Args:
        endpoint: of the blueprint as it is mounted.
    """

    service: str
    title: str
    given: Sequence[Link]
    endpoint: str

    @property
    def release(self) -> str:
        return f"sagas-framework {RELEASE}"

    @property
    def links(self) -> list[tuple[str, str, bool]]:
        """``(name, address, whether it is this page)``."""
        return [resolved(link) for link in self.given]

    def static(self, filename: str) -> str:
        """The address of one of the frame's own files."""
        return url_for(f"{self.endpoint}.static", filename=filename, v=RELEASE)


def frame(service: str, *, title: str, links: Sequence[Link], name: str = "frame") -> Blueprint:
    """Gives an application's own pages the look of the console.

    ::

        app.register_blueprint(frame("stock", title="Stock", links=[("Stock", "/")]), url_prefix="/-")

    A template then says ``{% extends "saga_console/base.html" %}`` and fills its blocks ``main`` and
    ``head``. It may be given ``title``, ``live`` (milliseconds after which to ask again for what stands in
    ``data-live``), ``refresh`` (the same in seconds without scripts) and ``live_state``. An application with
    a console has the frame already.

    Args:
        service: stands at the foot of every page.
        title: of the whole site, leading to the first link.
        links: the navigation; see `console`.
    """
    blueprint = Blueprint(
        name, __name__, template_folder="templates", static_folder="static", static_url_path=""
    )
    blueprint.app_template_filter("saga_utc")(utc)

    @blueprint.record
    def mounted(state: BlueprintSetupState) -> None:
        if FRAMED in state.app.extensions:
            return
        endpoint = f"{state.name_prefix}.{state.name}".lstrip(".")
        state.app.extensions[FRAMED] = endpoint
        known = PlainFrame(service, title, tuple(links), endpoint)
        state.app.context_processor(lambda: {"console": known})

    blueprint.after_request(kept_for_a_day)
    return blueprint


def kept_for_a_day(response: Response) -> Response:
    """A file of a release, asked for by that release's number, does not change."""
    if not current_app.debug and "v" in request.args and response.status_code == 200:
        response.cache_control.no_cache = None
        response.cache_control.public = True
        response.cache_control.max_age = 86400
    return response
