"""What went wrong with a request, for the person or the program that made it."""

from __future__ import annotations


class Problem(Exception):
    """A request that is not obeyed. Nothing was changed.

    Args:
        status: of HTTP.
        error: what was wrong, without a full stop.
        do: what to do about it, without a full stop.
    """

    def __init__(self, status: int, error: str, do: str) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.do = do
