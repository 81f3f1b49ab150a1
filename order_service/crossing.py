"""Requests that another site's page makes in a visitor's name."""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import request

from order_service.errors import Refusal


def refuse_other_sites() -> None:
    """Let a form be posted only from our own pages, and by programs.

    There is no session and no cookie that another site could misuse, and so no token. But the service
    may stand where only its visitors get to, and no page elsewhere should launch orders through them.
    Browsers say in Sec-Fetch-Site where a request comes from (older ones, and all without HTTPS on
    other hosts than localhost, in Origin alone); what says nothing is no browser.

    Raises:
        Refusal: the request comes from a page of another origin.
    """
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site is not None:
        other = site not in ("same-origin", "none")  # "none": typed, or from a bookmark
    else:
        # "null", a page that hides where it is from, has no host.
        other = origin is not None and urlsplit(origin).netloc != request.host
    if other:
        raise Refusal(
            403,
            f"This POST comes from a page of another origin ({origin or site}), and is not obeyed",
            "Launch from the homepage, or from a program that sends neither Origin nor Sec-Fetch-Site",
        )
