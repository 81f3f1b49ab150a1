"""Who may act, and which requests: operators, the token of every form, and where a request comes from.

Nobody is authenticated here: reading the pages, and that a name is its owner's, are the application's.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from flask import Response, current_app, g, request, url_for
from itsdangerous import BadSignature, URLSafeSerializer

from sagas_framework.console.origin import foreign_origin
from sagas_framework.console.problem import Problem
from sagas_framework.errors import ConfigurationError
from sagas_framework.storage.ports import is_storable

Operators = Collection[str] | Callable[[], str | None]
"""Names, of which one is typed; or who is logged in now, None for nobody."""

TOKEN_LASTS: Final = timedelta(hours=12)
LONGEST_NAME: Final = 100
"""Characters of an operator's name."""
LONGEST_REASON: Final = 500
"""Characters of a reason."""
LARGEST_POST: Final = 400_000
"""Bytes; the confirmation of 1,000 sagas has about 70,000."""

_ROUND: Final = timedelta(minutes=30)  # so that a page that did not change has the same token in it
_COOKIE: Final = "saga_console"


@dataclass(frozen=True)
class Signed:
    """Under whose name something is asked, and why."""

    by: str
    reason: str


class Guard:
    """Decides whether a request may act.

    Args:
        operators: see `Operators`; None: nobody acts.
        clock: by which tokens grow old.

    Raises:
        ConfigurationError: `operators` cannot be used.
    """

    def __init__(self, operators: Operators | None, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._asks: Callable[[], str | None] | None = None
        self._names: frozenset[str] = frozenset()
        if operators is None:
            return
        if callable(operators):
            self._asks = operators
            return
        if isinstance(operators, str):
            raise ConfigurationError(
                f"operators={operators!r} is one string. Give a list of names: operators=[{operators!r}]."
            )
        self._names = frozenset(_checked(name) for name in operators)

    # ---- at the start -----------------------------------------------------------------------------

    @property
    def configured(self) -> bool:
        """Whether somebody may act at all."""
        return self._asks is not None or bool(self._names)

    def check_key(self, secret_key: object) -> None:
        """See that the application can sign tokens.

        Raises:
            ConfigurationError: it has no secret key.
        """
        if self.configured and not secret_key:
            raise ConfigurationError(
                "The console signs its forms with the application's secret key, and it has none. Before "
                'app.register_blueprint(...), set app.secret_key, such as to os.environ["SECRET_KEY"] '
                "(make one: python -c 'import secrets; print(secrets.token_hex())')."
            )

    # ---- while a page is made ---------------------------------------------------------------------

    @property
    def who(self) -> str | None:
        """Who is logged in, as the application says; None if names are typed, or nobody is."""
        if self._asks is None:
            return None
        name = self._asks()
        return None if name is None else " ".join(name.split())[:LONGEST_NAME] or None

    @property
    def suggested(self) -> str:
        """The name that is typed for whoever acts, where there is only one."""
        return next(iter(self._names)) if len(self._names) == 1 else ""

    @property
    def acting(self) -> bool:
        """Whether who looks at this page may act, and so whether it has forms."""
        return bool(self._names) or self.who is not None

    def token(self) -> str:
        """The token of this page's forms; the cookie that belongs to it goes out with the answer."""
        moment = int(self._clock().timestamp())
        rounded = moment - moment % int(_ROUND.total_seconds())
        return self._serializer().dumps([self._cookie(), self.who, rounded])

    def tag(self) -> str:
        """What of the guard a page depends on, for its ETag."""
        return self.token() if self.acting else "off"

    def set_cookie(self, response: Response) -> None:
        """Send the cookie with the page whose forms need it, if it is a new one."""
        made = g.get(self._place)
        if made is None or made == request.cookies.get(self._name):
            return
        response.set_cookie(
            self._name, made, path=self._path, secure=request.is_secure, httponly=True, samesite="Strict"
        )

    # ---- when somebody acts -----------------------------------------------------------------------

    def check(self) -> None:
        """See that this request may act.

        Raises:
            Problem: 403; it says what to do about it. 411, 413: its length is unknown, or too much.
        """
        if not self.configured:
            raise Problem(
                403,
                "Nobody may act here: no operators are configured",
                "Give them to the console: console(sagas, operators=[...]), or act with the program `saga`",
            )
        if (length := request.content_length) is None:
            raise Problem(
                411,
                "The request has no body, or does not say how long it is",
                "Send it with its Content-Length",
            )
        if length > LARGEST_POST:
            raise Problem(413, f"The request has more than {LARGEST_POST:,} bytes", "Send less at once")
        _check_origin()
        if not self.acting:
            raise Problem(403, "You are not logged in, so you cannot act", "Log in and open the page again")
        if not request.is_json:  # which no other site's page can send without asking us first
            self._check_token(request.form.get("csrf", ""))

    def sign(self, given: Mapping[str, Any]) -> tuple[Signed, dict[str, str]]:
        """Whose name and reason an act gets, from ``by`` and ``reason``; and what is wrong with them.

        Returns:
            What was given, tidied up; and ``field -> what is wrong``, empty if it can be used.
        """
        wrong: dict[str, str] = {}
        reason = _tidy(given.get("reason"), "reason", LONGEST_REASON, wrong)
        who = self.who
        if who is not None:
            return Signed(who, reason), wrong
        by = _tidy(given.get("by"), "by", LONGEST_NAME, wrong)
        if "by" not in wrong and by not in self._names:
            wrong["by"] = f"{by} is not one of the operators who may act here."
        return Signed(by, reason), wrong

    # ---- parts ------------------------------------------------------------------------------------

    def _check_token(self, token: str) -> None:
        again = "Open the page again, look at it anew, and repeat"
        cookie = request.cookies.get(self._name)
        if not token or not cookie:
            raise Problem(
                403,
                f"The form came without its {'cookie' if token else 'token'}, and is not obeyed",
                f"{again}; the browser must keep cookies" if token else again,
            )
        try:
            value, who, at = self._serializer().loads(token)
        except (BadSignature, ValueError, TypeError):
            raise Problem(403, "The form's token is not one of ours, and it is not obeyed", again) from None
        if not hmac.compare_digest(str(value).encode(), cookie.encode()):
            raise Problem(403, "The form was made for another visitor, and is not obeyed", again)
        if who != self.who:
            raise Problem(403, "The form was made while somebody else was logged in", again)
        if self._clock().timestamp() - at > TOKEN_LASTS.total_seconds():
            hours = int(TOKEN_LASTS / timedelta(hours=1))
            raise Problem(403, f"The form is more than {hours} h old, and is not obeyed", again)

    def _cookie(self) -> str:
        """The value of the cookie that this visitor has or gets."""
        value = request.cookies.get(self._name) or g.get(self._place) or secrets.token_urlsafe(24)
        setattr(g, self._place, value)
        return str(value)

    @property
    def _name(self) -> str:
        return f"{_COOKIE}_{request.blueprint}".replace(".", "_")

    @property
    def _place(self) -> str:
        return f"_{self._name}"

    @property
    def _path(self) -> str:
        return url_for(".list_sagas")

    @staticmethod
    def _serializer() -> URLSafeSerializer:
        key = current_app.secret_key
        if not key:
            raise ConfigurationError("The application's secret key is gone: set app.secret_key.")
        former = current_app.config.get("SECRET_KEY_FALLBACKS") or []
        return URLSafeSerializer([*former, key], salt=f"sagas_framework.console.{request.blueprint}")


def _checked(name: object) -> str:
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"{name!r} cannot be an operator: a name is text of 1 to {LONGEST_NAME} characters."
        )
    return " ".join(name.split())


_FIELDS: Final = {"by": ("your name", "Your name"), "reason": ("a reason", "The reason")}


def _tidy(given: object, field: str, longest: int, wrong: dict[str, str]) -> str:
    """The text of a field in one line, with a note if it cannot be kept."""
    what, name = _FIELDS[field]
    text = " ".join(given.split()) if isinstance(given, str) else ""
    if not text:
        wrong[field] = f"Give {what}: it is kept in the saga's history."
    elif len(text) > longest:
        wrong[field] = f"{name} has {len(text)} characters; {longest} at most are kept."
    elif not is_storable(text):
        wrong[field] = f"{name} has characters that cannot be kept, such as NUL."
    return text


def _check_origin() -> None:
    """Raises Problem: the request comes from a page of another origin."""
    if (origin := foreign_origin()) is not None:
        raise Problem(
            403,
            f"This POST comes from a page of another origin ({origin}), and is not obeyed",
            "Act on the console's own pages, or from a program that sends neither Origin nor Sec-Fetch-Site",
        )
