"""Requests that another site's page makes in a visitor's name."""

from __future__ import annotations

from app_common.web.errors import Refusal
from sagas_framework.console import foreign_origin


def refuse_other_sites() -> None:
    """Let a form be posted only from our own pages, and by programs.

    There is no session and no cookie that another site could misuse, and so no token. But the service
    may stand where only its visitors get to, and no page elsewhere should launch orders through them.

    Raises:
        Refusal: the request comes from a page of another origin.
    """
    if (origin := foreign_origin()) is not None:
        raise Refusal(
            403,
            f"This POST comes from a page of another origin ({origin}), and is not obeyed",
            "Launch from the homepage, or from a program that sends neither Origin nor Sec-Fetch-Site",
        )
