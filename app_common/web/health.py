"""``GET /healthz``: whether a service does its work, answered within seconds whatever hangs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final

from flask import Response, jsonify

from sagas_framework import (
    Checkup,
    Participant,
    Sagas,
    Subscriber,
    check_orchestrator,
    check_participant,
    check_subscriber,
)

logger = logging.getLogger(__name__)

ANSWER_WITHIN: Final = 4.0
"""Seconds; connecting to a database that does not answer is given up after 3."""
GIVE_UP_AFTER: Final = 60.0
"""Seconds after which a look that hangs is left alone."""


class Look:
    """Looks in a thread, one at a time; whoever asks meanwhile waits for the same look.

    So a request is answered in time even if the database takes the question and never answers it,
    and however often it is asked, one thread and one connection hang, not one for each request.

    Args:
        look: what to do; it may take for ever.
        within: seconds to wait for it.
        give_up_after: seconds after which a look that hangs is forgotten and another one begins: its
            connection may be dead while new ones work.
    """

    def __init__(
        self,
        look: Callable[[], Checkup],
        *,
        within: float = ANSWER_WITHIN,
        give_up_after: float = GIVE_UP_AFTER,
    ) -> None:
        self._look = look
        self._within = within
        self._give_up_after = give_up_after
        self._lock = threading.Lock()
        self._found: Future[Checkup] | None = None
        self._begun_at = 0.0

    def __call__(self) -> Checkup:
        """What was found.

        Raises:
            TimeoutError: nothing yet.
        """
        with self._lock:
            now = time.monotonic()
            found = self._found
            if found is None or found.done() or now - self._begun_at > self._give_up_after:
                found, self._begun_at = Future(), now
                self._found = found
                threading.Thread(target=self._run, args=(found,), name="healthz", daemon=True).start()
        return found.result(self._within)

    def _run(self, found: Future[Checkup]) -> None:
        try:
            found.set_result(self._look())
        except BaseException as error:
            found.set_exception(error)


class Healthz:
    """The view. 200 if all is well, 503 with the reasons if not; see ``saga health``.

    Args:
        blank: a checkup with nothing found yet.
        look: what finds it; it may take for ever.
    """

    def __init__(
        self, blank: Callable[[], Checkup], look: Callable[[], Checkup], *, within: float = ANSWER_WITHIN
    ) -> None:
        self._blank = blank
        self._within = within
        self._look = Look(look, within=within)

    @classmethod
    def of_sagas(cls, sagas: Sagas, *, within: float = ANSWER_WITHIN) -> Healthz:
        """Of an orchestrator."""
        return cls(
            lambda: Checkup(sagas.service, "orchestrator", str(sagas.database)),
            lambda: check_orchestrator(sagas),
            within=within,
        )

    @classmethod
    def of_service(cls, serves: Participant | Subscriber, *, within: float = ANSWER_WITHIN) -> Healthz:
        """Of a service that is asked, or told."""
        kind, look = (
            ("subscriber", lambda: check_subscriber(serves))
            if isinstance(serves, Subscriber)
            else ("participant", lambda: check_participant(serves))
        )
        return cls(
            lambda: Checkup(serves.service.name, kind, str(serves.database)),
            look,
            within=within,
        )

    def __call__(self) -> Response:
        checkup = self._blank()
        body: dict[str, Any]
        try:
            body = told(self._look())
        except TimeoutError:
            checkup.trouble(
                "database", f"The database {checkup.address} has not answered for {self._within:g} s"
            )
            body = told(checkup)
        except Exception as error:
            logger.exception("looking after the health of %s failed", checkup.service)
            checkup.trouble("database", f"The look itself failed ({type(error).__name__}): see the log")
            body = told(checkup)
        response = jsonify(body)
        response.status_code = 200 if body["healthy"] else 503
        response.cache_control.no_store = True
        return response


def told(checkup: Checkup) -> dict[str, Any]:
    """A checkup as plain JSON: of each part whether it is well (None: not known), and why not."""
    return {
        "service": checkup.service,
        "healthy": not checkup.troubles,
        "checks": {
            part: {
                "healthy": well,
                "reasons": [trouble.reason for trouble in checkup.troubles if trouble.part == part],
            }
            for part, well in checkup.parts.items()
        },
        "warnings": checkup.warnings,
    }
