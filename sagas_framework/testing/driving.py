"""Random schedules: Hypothesis makes them up, and shrinks the first that breaks a promise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from sagas_framework.testing.choices import KINDS, Sown

_APART: Final = st.integers(0, 5) | st.integers(0, 60)
_FAULTS: Final = st.lists(st.tuples(_APART, st.integers(0, 31)), max_size=14)
_UNKNOWN: Final = st.integers(0, 2**KINDS - 1)
_PLACES: Final = st.integers(0, 99)
_ON_SQLITE: Final = (97, 98)
"""At these places a run keeps its rows on SQLite, with batches and without."""
_IN_BATCHES: Final = 1
"""Commands are taken in batches at every fourth place, this the first. Shrunk, a run is at place 0, in memory
and one by one, if it breaks there, too."""


class Unrepeatable(Exception):
    """The same choices gave another run."""


def drive(play: Callable[[Sown], None], runs: int, seed: int) -> None:
    """Play so many schedules, the same for the same seed.

    Raises:
        Exception: what `play` raised for the smallest schedule found for which it does.
        Unrepeatable: it did not raise it again.
    """

    @seeded(seed)
    @settings(
        max_examples=runs,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )
    @given(_FAULTS, _UNKNOWN, _PLACES)
    def one(faults: list[tuple[int, int]], unknown: int, place: int) -> None:
        play(Sown(faults, unknown, on_sqlite=place in _ON_SQLITE, in_batches=place % 4 == _IN_BATCHES))

    try:
        one()
    except Flaky as flaky:
        raise Unrepeatable from flaky
