"""The order platform's documents, of which one is changed for the next release."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from app_common.specifications import specifications
from sagas_framework.contracts import Change, Document, document
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.judging import Judge, LastRelease

Content = dict[str, Any]
Edit = Callable[[Content], None]

CREATE = "restaurant_service.create_ticket"


@cache
def last_release() -> Mapping[str, Document]:
    """The documents as they are, by service."""
    return {one.service: document(one.document, f"{one.service}.yaml") for one in specifications()}


def next_release(service: str, edit: Edit, before: Edit | None = None) -> tuple[Document, Document]:
    """The service's document of the last release and that of the next.

    Args:
        edit: what the next release changes.
        before: what both releases have, and the order platform has not.
    """
    old = copy.deepcopy(dict(last_release()[service].content))
    if before is not None:
        before(old)
    new = copy.deepcopy(old)
    edit(new)
    return document(old, "old.yaml"), document(new, "new.yaml")


def judged(containing: Containing, service: str, edit: Edit, before: Edit | None = None) -> list[Change]:
    """What the change does to the others, who are still of the last release."""
    old, new = next_release(service, edit, before)
    others = [one for name, one in last_release().items() if name != service]
    return list(Judge(old, new, containing, LastRelease([*others, old])).changes())


def schema_of(content: Content, name: str) -> Content:
    """A named schema: ``CreateTicket``."""
    schema: Content = content["components"]["schemas"][name]
    return schema


def field_of(content: Content, name: str) -> Content:
    """The schema of a field: ``OrderItem.quantity``."""
    schema, _, attribute = name.partition(".")
    field: Content = schema_of(content, schema)["properties"][attribute]
    return field
