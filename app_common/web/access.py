"""Who is asking: a token in a header for programs, a login for people. Reading needs neither.

A cookie says who logged in and when, sealed with that person's own token, so there is no other secret to
keep and none to share between processes; so are the forms of a page. To take somebody's access away, take
the token out of the setting.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Final

from flask import Flask, Response, redirect, render_template, request, url_for
from markupsafe import Markup
from werkzeug.wrappers import Response as BaseResponse

from app_common.people import People
from app_common.web.errors import Refusal
from sagas_framework.console import foreign_origin, wants_html

LASTS: Final = 12 * 3600
"""Seconds that a login lasts."""
LARGEST_FORM: Final = 64 * 1024
"""Bytes."""


class Access:
    """Knows who is asking.

    Args:
        people: who may act here.
        service: names the cookie: those of one host are shared by all its ports.
        home: endpoint to go to after the login.
        setting: the environment variable that names the people.
        now: seconds since 1970.
    """

    def __init__(
        self,
        people: People,
        service: str,
        *,
        home: str,
        setting: str = "OPERATOR_TOKENS",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._people = people
        self._service = service
        self._home = home
        self._setting = setting
        self._now = now

    def install(self, app: Flask) -> None:
        """Add the login to the application, and make `access` known to its templates."""
        app.add_url_rule("/login", "login", self.show_login)
        app.add_url_rule("/login", "log_in", self.log_in, methods=["POST"])
        app.add_url_rule("/logout", "log_out", self.log_out, methods=["POST"])
        app.context_processor(lambda: {"access": self})

    # ---- who --------------------------------------------------------------------------------------

    @property
    def possible(self) -> bool:
        """Whether anybody may act."""
        return bool(self._people)

    @property
    def person(self) -> str | None:
        """Who has logged in, as the cookie proves; None: nobody."""
        try:
            at, encoded, seal = request.cookies.get(self._cookie, "").split(".")
            name = base64.urlsafe_b64decode(encoded.encode()).decode()
            since = int(self._now()) - int(at)  # no float holds every number
        except ValueError:
            return None
        if not 0 <= since <= LASTS:
            return None
        return name if self._people.sealed(seal, name, self._service, "login", at) else None

    @property
    def csrf(self) -> Markup:
        """The hidden field that every form needs; empty for who has not logged in."""
        name = self.person
        seal = name and self._people.seal(name, self._service, "form", request.cookies[self._cookie])
        return Markup('<input type="hidden" name="csrf" value="{}">').format(seal or "")

    def who(self) -> str:
        """Who asks for a change.

        Raises:
            Refusal: 403: nobody may, or the form is none of ours. 401: who it is, is not proven.
        """
        if not self._people:
            raise Refusal(
                403,
                "Nobody may change anything here: there are no operators",
                f"Name them, each with a token, in the setting {self._setting}, and start the service again",
            )
        header = request.headers.get("Authorization")
        if header is not None:
            return self._bearer(header)
        if (origin := foreign_origin()) is not None:
            raise Refusal(
                403,
                f"This POST comes from a page of another origin ({origin}), and is not obeyed",
                "Act on this service's own page, or from a program that sends a token",
            )
        name = self.person
        if name is None:
            raise _unproven("Who asks for this is not proven")
        request.max_content_length = LARGEST_FORM
        given = "" if request.is_json else request.form.get("csrf", "")
        if not self._people.sealed(given, name, self._service, "form", request.cookies[self._cookie]):
            raise Refusal(
                403,
                "The form is not one of ours, or of another login, and is not obeyed",
                "Open the page again, and repeat",
            )
        return name

    def _bearer(self, header: str) -> str:
        scheme, _, token = header.partition(" ")
        name = self._people.holder(token.strip()) if scheme.lower() == "bearer" else None
        if name is None:
            raise _unproven("The token is nobody's")
        return name

    # ---- login ------------------------------------------------------------------------------------

    def show_login(self) -> Response:
        return self._login_page()

    def log_in(self) -> BaseResponse:
        """Give whoever has a token a cookie.

        Raises:
            Refusal: the form comes from another site's page.
        """
        if (origin := foreign_origin()) is not None:
            raise Refusal(
                403, f"This login comes from a page of another origin ({origin})", "Log in on our own page"
            )
        request.max_content_length = LARGEST_FORM
        name = self._people.holder(request.form.get("token", "").strip())
        if name is None:
            return self._login_page(wrong="This token is nobody's.", status=401)
        at = str(int(self._now()))
        seal = self._people.seal(name, self._service, "login", at)
        encoded = base64.urlsafe_b64encode(name.encode()).decode()
        response = redirect(url_for(self._home), 303)
        response.set_cookie(
            self._cookie,
            f"{at}.{encoded}.{seal}",
            max_age=LASTS,
            path=request.script_root or "/",
            secure=request.is_secure,
            httponly=True,
            samesite="Strict",
        )
        return response

    def log_out(self) -> BaseResponse:
        """Take the cookie back.

        Raises:
            Refusal: the form comes from another site's page.
        """
        if (origin := foreign_origin()) is not None:
            raise Refusal(
                403, f"This logout comes from a page of another origin ({origin})", "Log out on our own page"
            )
        response = redirect(url_for(self._home), 303)
        response.delete_cookie(self._cookie, path=request.script_root or "/")
        return response

    def _login_page(self, wrong: str | None = None, status: int = 200) -> Response:
        if not wants_html() and wrong is not None:
            raise _unproven("The token is nobody's")
        page = render_template(
            "platform/login.html",
            title="Log in",
            wrong=wrong,
            setting=self._setting,
            names=self._people.names,
        )
        response = Response(page, status, mimetype="text/html")
        response.cache_control.no_store = True
        return response

    @property
    def _cookie(self) -> str:
        return f"{self._service}_login"


def _unproven(error: str) -> Refusal:
    return Refusal(
        401,
        error,
        "Send your token in the header Authorization: Bearer ..., or log in at /login",
        {"WWW-Authenticate": "Bearer"},
    )
