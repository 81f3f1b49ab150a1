"""Text that comes from people: data, to be stored and shown, never markup."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, Field

_TURNS: Final = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
"""Bidirectional classes of the characters that turn the direction of what follows."""
_FROM_THE_RIGHT: Final = frozenset({"R", "AL", "AN"})
"""Of those that are written from the right."""
_NOTHING: Final = frozenset({"Zs", "Zl", "Zp", "Cf"})
"""Categories of the characters that show nothing: spaces, and what only formats."""
_BLANKS: Final = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that show nothing."""
LONGEST_NAME: Final = 200
"""Characters of a name: of a customer, an item, a dish."""


def no_controls(text: str) -> str:
    """The text, if it can be kept and shown in one line.

    PostgreSQL does not store a NUL, and nobody wants the other control characters in a name. One that turns
    the direction of writing would turn what stands behind the name, too: 9.99 would be read as 99.9. Names
    that are written from the right need none.

    Raises:
        ValueError: it has a control character.
    """
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("a control character, such as a line break, cannot be in it")
    if any(unicodedata.bidirectional(character) in _TURNS for character in text):
        raise ValueError("a character that turns the direction of writing cannot be in it")
    return text


def not_blank(text: str) -> str:
    """The text, if there is something in it to be seen.

    Raises:
        ValueError: it has nothing but spaces, and other characters that show nothing.
    """
    if all(character in _BLANKS or unicodedata.category(character) in _NOTHING for character in text):
        raise ValueError("nothing can be seen in it: write at least one letter, digit or sign")
    return text


def isolated(text: str) -> str:
    """What somebody wrote, for a line of other words. On a page, ``<bdi>`` does the same around it.

    What is written from the right would take numbers that stand beside it to its other side: after an
    Arabic name, ": 2 milk. Total = 9.99" begins elsewhere. Other text stays as it is.
    """
    if any(unicodedata.bidirectional(character) in _FROM_THE_RIGHT for character in text):
        return f"\u2068{text}\u2069"
    return text


Name = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_NAME),
    AfterValidator(no_controls),
    AfterValidator(not_blank),
]
"""A name in one line."""

OrderId = Annotated[str, Field(min_length=1, max_length=100, examples=["order_riley_o066i"])]
"""Which order something is for; the other services only note it."""
