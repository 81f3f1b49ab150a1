"""``-A module[:attribute]``: import the module and find whose sagas and inbox these are."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from celery import Celery

from sagas_framework.errors import SagasError
from sagas_framework.participant import Participant
from sagas_framework.sagas import Sagas
from sagas_framework.storage.database import Database
from sagas_framework.subscriber import Subscriber

T = TypeVar("T")


class NotFound(SagasError):
    """``-A`` leads nowhere, or to more than one place."""


@dataclass(frozen=True)
class Found:
    """What the module has: sagas, a participant, a subscriber, or several. `name` is as ``-A`` gave it.

    Args:
        apps: the module's Celery apps.
    """

    name: str
    sagas: Sagas | None
    participant: Participant | None
    apps: tuple[Celery, ...] = ()
    subscriber: Subscriber | None = None

    @property
    def databases(self) -> list[Database]:
        """The databases of what was found, each once."""
        parts = (self.sagas, self.participant, self.subscriber)
        found = [part.database for part in parts if part is not None]
        databases: dict[str, Database] = {}
        for database in found:
            if database is not None:
                databases.setdefault(database.url, database)  # that of a subscriber may know no migrations
        return list(databases.values())

    def app_of(self, side: Sagas | Participant | Subscriber) -> Celery | None:
        """The Celery app whose workers run these sagas, or serve this side; None if none is here."""
        for app in self.apps:
            if any(kept is side for kept in _candidates(app)):
                return app
        return None

    @property
    def clock(self) -> Callable[[], datetime]:
        """The clock that its workers go by."""
        part = self.sagas or self.participant or self.subscriber
        assert part is not None
        return part.clock


def find(name: str) -> Found:
    """Import the module and find its `Sagas`, its `Participant` and its `Subscriber`.

    With an attribute: there. Without one: where a Celery app of the module keeps them; else in any
    attribute of the module.

    Raises:
        NotFound: there is no such module or attribute, nothing in it, or more than one of a kind.
    """
    module_name, _, attribute = name.partition(":")
    module = _imported(module_name)
    looked: dict[str, Any] = {}
    if attribute:
        looked = {attribute: _attribute(module, attribute)}
        parts = _parts(looked)
        if not any(parts):
            kind = type(looked[attribute]).__name__
            raise NotFound(
                f"{name} is neither Sagas nor a Participant nor a Subscriber, nor a Celery app that has one: "
                f"it is a {kind}."
            )
    else:
        public = {key: value for key, value in vars(module).items() if not key.startswith("__")}
        apps = {key: value for key, value in public.items() if isinstance(value, Celery)}
        parts = _parts(apps)
        if not any(parts):
            parts = _parts(public)
        if not any(parts):
            raise NotFound(
                f"The module {module_name} has no Sagas, no Participant and no Subscriber, nor a Celery app "
                "that has one. "
                "Name the module of a worker, or module:attribute."
            )
    found = [value for value in (*vars(module).values(), *looked.values()) if isinstance(value, Celery)]
    sagas, participants, subscribers = parts
    return Found(
        name,
        _only(module_name, sagas),
        _only(module_name, participants),
        tuple(found),
        _only(module_name, subscribers),
    )


_Parts = tuple[dict[str, Sagas], dict[str, Participant], dict[str, Subscriber]]


def _parts(values: dict[str, Any]) -> _Parts:
    return _of_kind(values, Sagas), _of_kind(values, Participant), _of_kind(values, Subscriber)


def _imported(name: str) -> ModuleType:
    if (here := os.getcwd()) not in sys.path:
        sys.path.insert(0, here)
    try:
        # What a module prints while it is imported is not our output.
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise NotFound(
                f"There is no module {name!r} ({missing.name!r} was not found). Run `saga` in the folder "
                "from which your workers start, or set PYTHONPATH."
            ) from None
        raise _broken(name, missing) from missing
    except (ValueError, TypeError) as error:
        if not name or name.startswith("."):
            raise NotFound(f"{name!r} is no module: write -A package.module[:attribute].") from None
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> NotFound:
    # Where the user's own code went wrong, not where Python or a library noticed it.
    lines = [(Path(f.filename), f.lineno) for f in traceback.extract_tb(error.__traceback__)]
    own = [(file.relative_to(Path.cwd()), line) for file, line in lines if file.is_relative_to(Path.cwd())]
    where = f" ({own[-1][0]}, line {own[-1][1]})" if own else ""
    told = " ".join(str(error).split())
    return NotFound(f"The module {name} cannot be imported: {type(error).__name__}: {told}{where}")


def _attribute(module: ModuleType, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise NotFound(f"The module {module.__name__} has no attribute {path!r}.") from None
    return value


def _of_kind(values: dict[str, Any], kind: type[T]) -> dict[str, T]:
    """The attributes that are one, or Celery apps that have one; each object under its first name."""
    found: dict[int, tuple[str, T]] = {}
    for name, value in values.items():
        for candidate in _candidates(value):
            if isinstance(candidate, kind):
                found.setdefault(id(candidate), (name, candidate))
    return dict(found.values())


def _candidates(value: Any) -> Iterable[Any]:
    if isinstance(value, Celery):
        return tuple(getattr(value, name, None) for name in ("sagas", "participant", "subscriber"))
    return (value,)


def _only(module: str, found: dict[str, T]) -> T | None:
    if len(found) > 1:
        choices = " or ".join(f"-A {module}:{name}" for name in found)
        raise NotFound(f"The module {module} has more than one {_kind(found)}. Name one of them: {choices}.")
    return next(iter(found.values()), None)


def _kind(found: dict[str, T]) -> str:
    return type(next(iter(found.values()))).__name__
