"""What keeps two documents from being compared."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from sagas_framework.errors import SagasError


class CannotCompare(SagasError):
    """There is no verdict: a document is missing or cannot be read, or a tool is not there."""


def needed(library: str) -> ModuleType:
    """A library of the extra ``contracts``.

    Raises:
        CannotCompare: it is not installed; the message has the command that installs it.
    """
    try:
        return import_module(library)
    except ModuleNotFoundError:
        raise CannotCompare(
            f"Comparing contracts needs {library}, which comes with an extra. "
            "Run: pip install 'sagas-framework[contracts]'"
        ) from None
