"""The blueprint, put together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from flask import Blueprint, request
from flask.blueprints import BlueprintSetupState

from sagas_framework.console.acts import add_acts_routes
from sagas_framework.console.answers import add_answers
from sagas_framework.console.bulk import add_bulk_routes
from sagas_framework.console.desk import Address, DescribedAt, Desk, Frame, Link, utc
from sagas_framework.console.framing import FRAMED
from sagas_framework.console.guard import Guard, Operators
from sagas_framework.console.lists import add_list_routes
from sagas_framework.console.masking import SECRETS, Masking
from sagas_framework.console.one import add_saga_routes
from sagas_framework.console.stuck import add_stuck_routes
from sagas_framework.errors import ConfigurationError
from sagas_framework.sagas import Sagas


def console(
    sagas: Sagas,
    *,
    operators: Operators | None = None,
    name: str = "sagas",
    title: str = "Sagas",
    links: Sequence[Link] = (),
    more_links: Sequence[Link] = (),
    secrets: Collection[str] = SECRETS,
    described_at: DescribedAt | None = None,
    said_at: Mapping[str, Address] | None = None,
) -> Blueprint:
    """Pages on which people see where every saga is and why, and act on those that need them.

    ::

        app = Flask(__name__)
        app.secret_key = os.environ["SECRET_KEY"]  # only needed with operators
        app.register_blueprint(console(sagas, operators=["maria", "jo"]), url_prefix="/sagas")

    It reads the rows of `sagas` and writes operators' acts as rows, which an orchestrator takes within
    a second. It never needs the broker. Every page is also JSON, for clients that do not prefer HTML.

    **Nobody is authenticated here.** Whoever reaches the pages can read every saga, with its state.
    Keep others out as from the rest of your application, such as by ``app.before_request``, or by
    ``before_request`` of this blueprint.

    A template of your own may say ``{% extends "saga_console/base.html" %}``: it gets the same frame.

    Args:
        operators: who may act; without it the pages only show. Names: whoever acts types one of them,
            which is for the history and proves nothing. Or a function that returns the name of who is
            logged in, and None for who may not act: ``operators=lambda: current_user.name``.
        name: of the blueprint; another one for a second console in the same application.
        title: of the whole site, shown on every page and leading to the first link.
        links: pages of yours, before "Sagas" in the navigation: names with addresses, or with functions
            that return them, such as ``("Home", lambda: url_for("home"))``, which works behind a prefix.
        more_links: the same, after "Sagas".
        secrets: names of fields whose values are shown as ``***`` in states and messages, besides those
            of the types `SecretStr` and `SecretBytes`; see `Masking`.
        described_at: says where a message is described, by the name of the task that it asks for; None
            where it is not. Messages on a saga's page lead there.
        said_at: signals that are not said here, because the application asks for proof of who says them: by
            name the address of its own page for that, to which the saga's page leads.

    Raises:
        ConfigurationError: `operators` are no names; or, when it is registered, there are operators and
            the application has no secret key.
    """
    if "." in name or not name:
        raise ConfigurationError(f"name={name!r} cannot name a blueprint: use letters and underscores.")
    desk = Desk(
        sagas,
        Guard(operators, sagas.clock),
        title,
        tuple(links),
        tuple(more_links),
        Masking(secrets),
        described_at,
        dict(said_at or {}),
    )
    blueprint = Blueprint(
        name, __name__, template_folder="templates", static_folder="static", static_url_path="/-"
    )
    add_answers(blueprint, desk)
    add_list_routes(blueprint, desk)
    add_stuck_routes(blueprint, desk)
    add_bulk_routes(blueprint, desk)
    add_acts_routes(blueprint, desk)
    add_saga_routes(blueprint, desk)
    blueprint.app_template_filter("saga_utc")(utc)

    @blueprint.context_processor
    def frame() -> dict[str, Frame]:
        return {"console": Frame(desk, str(request.blueprint))}

    @blueprint.record
    def mounted(state: BlueprintSetupState) -> None:
        desk.guard.check_key(state.app.secret_key)
        if FRAMED in state.app.extensions:
            return  # pages of the application have the frame of the console that was mounted first
        endpoint = f"{state.name_prefix}.{state.name}".lstrip(".")
        state.app.extensions[FRAMED] = endpoint
        state.app.context_processor(lambda: {"console": Frame(desk, endpoint)})

    return blueprint
