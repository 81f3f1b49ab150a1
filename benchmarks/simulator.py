"""How fast the simulator is: ``.venv/bin/python -m benchmarks.simulator``.

Two figures were promised for the order platform's own saga: 1,000 schedules a second on one core, and
all schedules with up to two faults in under 60 s. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import time
from decimal import Decimal
from typing import Final

from app_common.messaging import restaurant_service_messaging as restaurant
from order_service.sagas.create_order import CreateOrderSaga, CreateOrderState
from sagas_framework.testing import Simulation

AN_ORDER: Final = CreateOrderState(
    order_id=1,
    consumer_id=50,
    card_id=4,
    amount=Decimal("12.30"),
    items=[restaurant.OrderItem(name="pizza", quantity=2)],
)


def exhaust(faults: int) -> None:
    """All schedules with up to so many faults."""
    simulation = Simulation(CreateOrderSaga, AN_ORDER)
    begun = time.perf_counter()
    explored = simulation.exhaust(faults)
    took = time.perf_counter() - begun
    print(
        f"all schedules with up to {faults} faults: {explored.schedules:,} in {took:.1f} s, "
        f"{explored.schedules / took:,.0f} a second; {explored.states:,} states, "
        f"{explored.pruned:,} schedules ended in one that was known"
    )


def check(runs: int) -> None:
    """So many long schedules at random."""
    simulation = Simulation(CreateOrderSaga, AN_ORDER)
    simulation.check(50)  # compiles, imports
    begun = time.perf_counter()
    simulation.check(runs)
    took = time.perf_counter() - begun
    print(f"random schedules: {runs:,} in {took:.1f} s, {runs / took:,.0f} a second, 1 in 50 on SQLite")


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faults", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3000)
    given = parser.parse_args()
    exhaust(given.faults)
    check(given.runs)


if __name__ == "__main__":
    main()
