"""Pages for operators, as a Flask blueprint that any team mounts. Extra: ``console``."""

from __future__ import annotations

try:
    from sagas_framework.console.answers import wants_html
    from sagas_framework.console.framing import frame
    from sagas_framework.console.mounting import console
    from sagas_framework.console.origin import foreign_origin
    from sagas_framework.core.why import in_words
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("flask", "werkzeug", "itsdangerous", "markupsafe"):
        raise
    raise ModuleNotFoundError(
        f"The console needs {missing.name}, which comes with an extra. "
        "Run: pip install 'sagas-framework[console]'",
        name=missing.name,
    ) from None

__all__ = ["console", "foreign_origin", "frame", "in_words", "wants_html"]
