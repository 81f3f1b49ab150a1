"""References inside a JSON document (``{"$ref": "#/channels/..."}``), followed to their end.

Reference:
    RFC 6901, JSON Pointer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import unquote

Json: TypeAlias = Mapping[str, Any]

_DATA: Final = ("examples", "default", "const", "enum")
"""Under these names stand values, in which nothing is a reference."""

_NAMED: Final = ("properties", "patternProperties", "definitions", "dependencies")
"""Under these stand schemas by names that somebody chose, and who may have chosen ``default``."""


def follow(document: Json, node: Any) -> Any:
    """What stands at the end of the references that begin with this node; the node itself if it is none.

    Raises:
        ValueError: one leads out of the document, nowhere or in a circle.
    """
    return followed(document, node)[0]


def followed(document: Json, node: Any) -> tuple[Any, str | None]:
    """The same, and the last reference on the way; None if the node is none.

    Raises:
        ValueError: see `follow`.
    """
    seen: list[str] = []
    while isinstance(node, Mapping) and isinstance(node.get("$ref"), str):
        reference = node["$ref"]
        if reference in seen:
            raise ValueError(f"the reference {reference!r} leads back to itself")
        seen.append(reference)
        node = _at(document, reference)
    return node, seen[-1] if seen else None


def _at(document: Json, reference: str) -> Any:
    if not reference.startswith("#/"):
        raise ValueError(
            f"the reference {reference!r} leads out of the document: put all into one file, "
            "as `asyncapi bundle` does"
        )
    found: Any = document
    for part in reference[2:].split("/"):
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, Mapping) and name in found:
            found = found[name]
        else:
            raise ValueError(f"the reference {reference!r} leads nowhere: there is no {name!r}")
    return found


def references(node: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Json]]:
    """Every reference in a document, with the path at which it stands."""
    if isinstance(node, Mapping):
        if isinstance(node.get("$ref"), str):
            yield place, node
        named = place[-1:] and place[-1] in _NAMED
        for name, inner in node.items():
            if named or name not in _DATA:
                yield from references(inner, (*place, str(name)))
    elif isinstance(node, list):
        for index, inner in enumerate(node):
            yield from references(inner, (*place, str(index)))
