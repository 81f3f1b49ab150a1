"""AsyncAPI 3.1 documents of a service, made from its contracts and sagas. Extra: ``asyncapi``."""

from __future__ import annotations

try:
    from sagas_framework.asyncapi.checking import check_document, check_together, fitting
    from sagas_framework.asyncapi.picture import draw_system
    from sagas_framework.asyncapi.site import docs_site
    from sagas_framework.asyncapi.specification import Contact, License, Specification
    from sagas_framework.asyncapi.system import Neighbour, Operation, System, Talk
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] not in ("flask", "yaml", "jsonschema"):
        raise
    raise ModuleNotFoundError(
        f"AsyncAPI documents need {missing.name}, which comes with an extra. "
        "Run: pip install 'sagas-framework[asyncapi]'",
        name=missing.name,
    ) from None

__all__ = [
    "Contact",
    "License",
    "Neighbour",
    "Operation",
    "Specification",
    "System",
    "Talk",
    "check_document",
    "check_together",
    "docs_site",
    "draw_system",
    "fitting",
]
