"""Who may change something: people, each with a token that proves it. A name alone proves nothing."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Final

SHORTEST_TOKEN: Final = 16
"""Characters. What signs a cookie must not be guessed by whoever holds one."""


class People:
    """People by their tokens.

    Args:
        tokens: by name; no two people have the same.
    """

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = dict(tokens)

    def __bool__(self) -> bool:
        """Whether there is anybody."""
        return bool(self._tokens)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tokens)

    def holder(self, token: str) -> str | None:
        """Whose token it is; None: nobody's. How long it takes tells nothing of any token."""
        given, found = _digest(token), None
        for name, own in self._tokens.items():
            if hmac.compare_digest(_digest(own), given):
                found = name
        return found

    def seal(self, name: str, *parts: str) -> str | None:
        """What only the person's token makes of the parts, 64 hexadecimal digits; None: nobody has the name.

        Whatever is sealed so ends with the token: change it, and every cookie and form of its owner is void.
        """
        token = self._tokens.get(name)
        if token is None:
            return None
        said = "\0".join([name, *parts]).encode("utf-8", "surrogatepass")
        return hmac.new(_digest(token), said, hashlib.sha256).hexdigest()

    def sealed(self, seal: str, name: str, *parts: str) -> bool:
        """Whether it is the seal of these parts."""
        right = self.seal(name, *parts)
        return right is not None and hmac.compare_digest(right.encode(), seal.encode("utf-8", "replace"))


def _digest(token: str) -> bytes:
    """Of equal length for every token."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
