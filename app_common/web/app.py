"""A service's web application, but for its own pages."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, url_for

from app_common.settings import operators
from app_common.telemetry import trace_requests
from app_common.web.access import Access
from app_common.web.addresses import page_address
from app_common.web.errors import add_error_handlers
from app_common.web.health import Healthz
from sagas_framework import Participant, Subscriber
from sagas_framework.console import frame

TITLE: Final = "Order platform"
_HERE: Final = Path(__file__).parent


PAGES: Final = {
    "notification_service": "Notifications",
    "inventory_service": "Stock",
    "delivery_service": "Shipping",
}
"""What the navigation calls the services' own pages."""
APPROVALS: Final = "Approvals"
"""What it calls the order service's page of those."""


def service_app(import_name: str, serves: Participant | Subscriber, *, page: str) -> tuple[Flask, Access]:
    """An application with the look of the order service's pages, a login, errors and ``/healthz``.

    Args:
        serves: the service's part in what is said; its database is that of the pages.
        page: endpoint of the one page that people come for, which the application adds.

    Raises:
        SettingError: the operators' tokens cannot be used.
    """
    service = serves.service.name
    app = Flask(import_name)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # fields come in a meaningful order
    home = ("Home", partial(page_address, "order_service"))
    here = {PAGES[service]: partial(url_for, page)}
    approvals = (APPROVALS, lambda: f"{page_address('order_service')}approvals")
    app.register_blueprint(
        frame(service, title=TITLE, links=[home, approvals, *(links() | here).items()]), url_prefix="/-"
    )
    app.register_blueprint(platform())
    access = Access(operators(), service, home=page)
    access.install(app)
    app.add_url_rule("/healthz", "healthz", view_func=Healthz.of_service(serves))
    add_error_handlers(app, service)
    app.after_request(harden)
    trace_requests(app, service)
    return app, access


def platform() -> Blueprint:
    """What the services' own pages share: login, problems, styles."""
    return Blueprint(
        "platform",
        __name__,
        template_folder=str(_HERE / "templates"),
        static_folder=str(_HERE / "static"),
        static_url_path="/platform",
    )


def links() -> dict[str, Callable[[], str]]:
    """The services' own pages: names, and what gives their addresses."""
    return {name: partial(page_address, service) for service, name in PAGES.items()}


def harden(response: Response) -> Response:
    """Nothing of a page comes from elsewhere or is sent there, and no other page shows ours in a frame."""
    response.headers.setdefault(
        "Content-Security-Policy",
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    )
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
