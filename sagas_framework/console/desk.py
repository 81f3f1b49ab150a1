"""What the pages of one console share: the sagas, who may act, and the frame around every page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flask import request, url_for
from markupsafe import Markup

from sagas_framework.console.guard import Guard
from sagas_framework.console.masking import Masking
from sagas_framework.sagas import Sagas

Address = str | Callable[[], str]
"""An address or what gives it (``lambda: url_for("home")``, which works behind a prefix)."""

Link = tuple[str, Address]
"""A name and an address."""

DescribedAt = Callable[[str], str | None]
"""The address at which a task's messages are described, if they are."""


def _release() -> str:
    try:
        return version("sagas-framework")
    except PackageNotFoundError:  # run from a folder, not installed
        return "0"


RELEASE = _release()


@dataclass(frozen=True)
class Desk:
    """What the routes of one console share.

    Args:
        guard: who may act, and whether a request may.
        title: of the whole site, shown on every page.
        links: to pages of the application, before the console's own.
        more_links: after them.
        mask: hides what is secret in states and messages.
        described_at: where a task's messages are described.
        said_at: where in the application a signal is said, by its name, and so nowhere in the console.
    """

    sagas: Sagas
    guard: Guard
    title: str
    links: Sequence[Link] = ()
    more_links: Sequence[Link] = ()
    mask: Masking = field(default_factory=Masking)
    described_at: DescribedAt | None = None
    said_at: Mapping[str, Address] = field(default_factory=dict)


@dataclass(frozen=True)
class Frame:
    """What the templates know as ``console``: `base.html` needs nothing else.

    Args:
        endpoint: of the blueprint as it is mounted: ``sagas``, or ``admin.sagas`` inside another one.
    """

    desk: Desk
    endpoint: str

    @property
    def title(self) -> str:
        return self.desk.title

    @property
    def release(self) -> str:
        return f"sagas-framework {RELEASE}"

    @property
    def service(self) -> str:
        return self.desk.sagas.service

    @property
    def links(self) -> list[tuple[str, str, bool]]:
        """``(name, address, whether it is this page)``, the console's own in the middle."""
        sagas = self.url("list_sagas")
        before = [resolved(link) for link in self.desk.links]
        after = [resolved(link) for link in self.desk.more_links]
        here = self.endpoint in request.blueprints
        return [*before, ("Sagas", sagas, here), *after]

    def url(self, endpoint: str, **values: Any) -> str:
        """The address of a page of this console, also from a page of the application."""
        return url_for(f"{self.endpoint}.{endpoint}", **values)

    def static(self, filename: str) -> str:
        """The address of one of the console's own files."""
        return url_for(f"{self.endpoint}.static", filename=filename, v=RELEASE)

    def described_at(self, message: str) -> str | None:
        """Where a message is described, by its name: an answer stands beside what it answers."""
        find = self.desk.described_at
        return find and find(message.partition(".response.")[0].partition(".linked.")[0])

    def said_at(self, signal: str) -> str | None:
        """Where in the application a signal is said; None if it is said here."""
        address = self.desk.said_at.get(signal)
        return address() if callable(address) else address

    @property
    def acting(self) -> bool:
        """Whether forms are shown: see `Guard.acting`."""
        return self.desk.guard.acting

    @property
    def who(self) -> str | None:
        """Who is logged in, if the application says so; then nobody types a name."""
        return self.desk.guard.who

    @property
    def suggested(self) -> str:
        """The name to begin with where one is typed."""
        return self.desk.guard.suggested

    @property
    def csrf(self) -> Markup:
        """The hidden field that every form needs."""
        return Markup('<input type="hidden" name="csrf" value="{}">').format(self.desk.guard.token())


def resolved(link: Link) -> tuple[str, str, bool]:
    """Its name and address, and whether it is the page that is being made."""
    name, address = link
    found = address() if callable(address) else address
    return name, found, found == request.script_root + request.path


def utc(moment: datetime) -> datetime:
    """The moment as pages show it."""
    return moment.astimezone(UTC)
