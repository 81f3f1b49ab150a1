"""Command lines on a page: each is one that the program would understand. Nothing is run here."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

import click
import yaml
from flask import Flask
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import RequestRedirect

from app_common.settings import PAGES
from app_common.telemetry import DEFAULT_METRICS_PORT
from order_service.orchestrator import sagas
from order_service.web import create_app
from sagas_framework.cli.program import saga
from sagas_framework.console import console
from tests.docs.pages import ROOT


def trouble_with(typed: str) -> str | None:
    """Why the line cannot be typed like this; None if it can."""
    words = shlex.split(typed, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program = words[0].removeprefix(".venv/bin/") if words else ""
    if program not in _PROGRAMS:
        return f"{program!r} is no program that is known here"
    return _PROGRAMS[program](words[1:])


def is_command(line: str) -> bool:
    """Whether the line begins with a program that is known here; ``saga <saga>`` is the name of a span."""
    return re.match(rf"(\.venv/bin/)?({'|'.join(_PROGRAMS)})\s(?!<)", line) is not None


# ---- ours -----------------------------------------------------------------------------------------


def _saga(arguments: Sequence[str]) -> str | None:
    command: click.Command = saga
    context: click.Context | None = None
    name, rest = "saga", list(arguments)
    try:
        while True:
            context = command.make_context(name, rest, parent=context)
            rest = [*context._protected_args, *context.args]
            if not isinstance(command, click.Group) or not rest:
                break
            found, deeper, rest = command.resolve_command(context, rest)
            assert found is not None
            assert deeper is not None
            name, command = found, deeper
    except click.exceptions.Exit:
        return None  # --help
    except click.ClickException as error:
        return error.format_message()
    app = context.find_root().params["name"]
    return _module(app) if app else None


def _module(name: str) -> str | None:
    """Whether a worker of the order platform, or of an application that the page makes up."""
    package, _, module = name.partition(".")
    if package.endswith("_service") and not (ROOT / package / f"{module}.py").exists():
        return f"there is no module {name}"
    return None


def _celery(arguments: Sequence[str]) -> str | None:
    if arguments[:1] != ["-A"] or "worker" not in arguments[2:]:
        return "celery -A MODULE worker ..."
    return _module(arguments[1])


# ---- the repository's -----------------------------------------------------------------------------


def _make(arguments: Sequence[str]) -> str | None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    wanted = [word for word in arguments if "=" not in word]
    return None if set(wanted) <= set(targets) else f"make has no target {wanted}"


def _pip(arguments: Sequence[str]) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in arguments:
        if (extras := re.search(r"\[(.*)\]$", word)) is None:
            continue
        if unknown := set(extras[1].split(",")) - set(project["optional-dependencies"]):
            return f"there are no extras {sorted(unknown)}"
    return None


def _python(arguments: Sequence[str]) -> str | None:
    """A module of ours, with options that its package has."""
    if arguments[:1] == ["-c"]:
        compile(arguments[1], "-c", "exec")
        return None
    if arguments[:1] != ["-m"]:
        return None  # a file that the page makes up
    _, module, *rest = arguments
    package = ROOT / module.partition(".")[0]
    if not package.is_dir():
        return _pip(rest) if module == "pip" else None
    if not ROOT.joinpath(*module.split(".")).with_suffix(".py").exists():
        return f"there is no module {module}"
    declared = {
        word for file in package.glob("*.py") for word in re.findall(r'"(--[a-z-]+)"', file.read_text())
    }
    unknown = {word for word in rest if word.startswith("--")} - declared
    return f"{module} has no options {sorted(unknown)}" if unknown else None


def _docker(arguments: Sequence[str]) -> str | None:
    words = list(arguments[1:])
    file, profile = "docker-compose.yaml", None
    while words[:1] in (["-f"], ["--profile"]):
        option, value, *words = words
        file, profile = (value, profile) if option == "-f" else (file, value)
    services = yaml.safe_load((ROOT / file).read_text())["services"]
    if profile and not any(profile in service.get("profiles", ()) for service in services.values()):
        return f"{file} has no profile {profile}"
    command, *rest = words
    if command == "port":
        service, port = rest
        published = [str(one).split(":")[-1] for one in services.get(service, {}).get("ports", ())]
        return None if port in published else f"{service} publishes {published}, not {port}"
    if command == "exec":
        if rest[0] not in services:
            return f"{file} has no service {rest[0]}"
        return trouble_with(shlex.join(rest[1:]))
    named = {word for word in rest if not word.startswith("-")}
    unknown = {word.split("=")[0] for word in named} - set(services)
    return f"{file} has no services {sorted(unknown)}" if unknown else None


@cache
def _routes() -> Any:
    """The order platform's, and those of a console under /sagas."""
    app: Flask = create_app()
    if not any(rule.rule == "/sagas/" for rule in app.url_map.iter_rules()):
        app.register_blueprint(console(sagas, name="another"), url_prefix="/sagas")
    return app.url_map.bind("127.0.0.1")


def _curl(arguments: Sequence[str]) -> str | None:
    posts = {"-d", "--json"} & set(arguments)
    method = "POST" if posts else "GET"
    if "-X" in arguments:
        method = arguments[arguments.index("-X") + 1]
    (address,) = [word for word in arguments if re.match(r"(http://)?(localhost|127\.0\.0\.1):\d+/", word)]
    there = urlsplit(address if "://" in address else f"http://{address}")
    path = there.path
    if there.port == int(DEFAULT_METRICS_PORT):
        return None if (method, path) == ("GET", "/metrics") else f"{method} {path} is not served there"
    if there.port != PAGES["order_service"]:
        return f"nothing is served on port {there.port}"
    try:
        _routes().match(path, method)
    except (NotFound, MethodNotAllowed) as error:
        return f"{method} {path}: {error.name}"
    except RequestRedirect:
        pass
    return None


_PROGRAMS: Final[dict[str, Callable[[Sequence[str]], str | None]]] = {
    "saga": _saga,
    "celery": _celery,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "docker": _docker,
    "curl": _curl,
}
