"""The web application, put together: every route is here, the pages and the API beside."""

from __future__ import annotations

from flask import Flask, url_for

from app_common.settings import APPROVER_TOKENS, approval_settings, approvers, page_settings
from app_common.telemetry import trace_requests
from app_common.web.access import Access
from app_common.web.app import APPROVALS, TITLE, harden, links, platform
from app_common.web.health import Healthz
from order_service import api, pages
from order_service.approvals import ApprovalViews
from order_service.errors import add_error_handlers
from order_service.launches import LAUNCHES
from order_service.orchestrator import sagas
from order_service.processing_api import ProcessingViews
from order_service.sagas.process_order import Approval
from order_service.system import described_at, show_system
from sagas_framework.console import console


def create_app() -> Flask:
    """The Flask application.

    Raises:
        SettingError: one that it needs cannot be used.
    """
    settings = page_settings()
    approval_settings()  # a wrong one is told now, not to the first customer
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # steps and fields come in a meaningful order
    app.secret_key = settings.secret_key
    app.register_blueprint(
        console(
            sagas,
            operators=settings.operators or None,
            title=TITLE,
            links=[("Home", lambda: url_for("homepage"))],
            more_links=[
                (APPROVALS, lambda: url_for("show_approvals")),
                *links().items(),
                ("System", lambda: url_for("show_system")),
            ],
            described_at=described_at,
            said_at={Approval.signal_name: lambda: url_for("show_approvals")},  # where a token proves by whom
        ),
        url_prefix="/sagas",
    )
    app.register_blueprint(platform())
    access = Access(approvers(), "order_service", home="show_approvals", setting=APPROVER_TOKENS)
    access.install(app)
    app.add_url_rule("/", view_func=pages.homepage)
    app.add_url_rule("/approvals", "show_approvals", ApprovalViews(access).show)
    app.add_url_rule("/system", view_func=show_system)
    for launch in LAUNCHES:
        told = {"launch": launch}
        app.add_url_rule(launch.path, f"show {launch.path}", view_func=pages.show_launch, defaults=told)
        app.add_url_rule(
            launch.path,
            launch.path,
            view_func=pages.run,
            methods=["POST"],
            defaults=told | {"access": access},
        )
    app.add_url_rule("/orders", view_func=api.take_order, methods=["POST"])
    app.add_url_rule("/orders/<order_id>", view_func=api.show_order)
    processing = ProcessingViews(access)
    orders = "/processing/orders"
    app.add_url_rule(orders, "take_processing_order", processing.take_order, methods=["POST"])
    app.add_url_rule(orders, "list_processing_orders", processing.list_orders)
    app.add_url_rule(f"{orders}/<order_id>", "show_processing_order", processing.show_order)
    app.add_url_rule(
        f"{orders}/<order_id>/approve", "approve_processing_order", processing.approve, methods=["POST"]
    )
    app.add_url_rule("/ping", view_func=api.ping)
    app.add_url_rule("/healthz", "healthz", view_func=Healthz.of_sagas(sagas))
    add_error_handlers(app)
    app.after_request(harden)
    trace_requests(app, "order_service")
    return app
