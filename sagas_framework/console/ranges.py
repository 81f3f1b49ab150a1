"""Numbers of acts in an address."""

from __future__ import annotations

from collections.abc import Iterable

from sagas_framework.console.problem import Problem


def as_ranges(numbers: Iterable[int]) -> str:
    """``12-57,60``: numbers that follow each other are told by the first and the last."""
    ranges: list[list[int]] = []
    for number in sorted(set(numbers)):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def from_ranges(text: str, most: int) -> list[int]:
    """The inverse of `as_ranges`.

    Raises:
        Problem: 400; it cannot be read, or names more than `most`.
    """
    numbers: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not _is_number(first) or (dash and not _is_number(last)):
            raise Problem(400, f"{text[:60]!r} names no acts", "Write their numbers like 12-57,60")
        until = int(last) if dash else int(first)
        if until - int(first) >= most or len(numbers) + until - int(first) >= most:
            raise Problem(400, f"{text[:60]!r} names more than {most:,} acts", "Ask for fewer at once")
        numbers += range(int(first), until + 1)
    return numbers


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18
