"""From which site's page a request comes, as its browser says."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import request


def foreign_origin() -> str | None:
    """The other site whose page made this request; None if it is a page of ours, or a program.

    Browsers say in Sec-Fetch-Site where a request comes from (older ones, and all without HTTPS on
    other hosts than localhost, in Origin alone); what says nothing is no browser.

    Returns:
        Its origin; ``null`` or ``cross-site`` where it is not told.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        other = site not in ("same-origin", "none")  # "none": typed, or from a bookmark
    else:
        # "null", a page that hides where it is from, has no host.
        other = origin is not None and _host(origin) != request.host
    return (origin or site or "null") if other else None


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # such as http://[
        return None
