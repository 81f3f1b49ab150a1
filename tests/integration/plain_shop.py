"""A team's Celery app as it was before there were sagas: it imports nothing of ours, and has no settings.

Run by `test_plain_tasks.py` as a worker of its own. What `SHOP_SETTINGS` says is put into its settings,
and every call of a task is a line of the file `SHOP_DIARY`.
"""

from __future__ import annotations

import json
import os
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from celery import Celery
from celery.exceptions import Ignore

RESULTS: dict[str, Any] = {
    "nothing": None,
    "number": 7,
    "text": "shelf 3",
    "list": [1, [2, "three"]],
    "object": {"reservation": 7, "shelves": ["a", "b"]},
    "dates": {"day": date(2026, 3, 1), "price": Decimal("12.30")},
    "no JSON": object(),
}

app = Celery("shop", broker=os.environ.get("SHOP_BROKER", "memory://"))
app.conf.update(json.loads(os.environ.get("SHOP_SETTINGS", "{}")))


def note(*told: object) -> None:
    with Path(os.environ["SHOP_DIARY"]).open("a") as diary:
        diary.write(" ".join(map(str, told)) + "\n")


@app.task(name="shop.tasks.reserve_stock")
def reserve_stock(sku: str, count: int) -> Any:
    note("reserve", sku, count)
    if sku == "broken":
        raise ValueError("no such shelf")
    if sku == "silent":
        raise Ignore
    return RESULTS[sku]


@app.task(name="shop.tasks.take_payment")
def take_payment(card: str) -> None:
    note("pay", card)
    if card == "stolen":
        raise PermissionError("card refused")


@app.task(name="shop.tasks.release_stock")
def release_stock(reserved: Any) -> None:
    note("release", json.dumps(reserved))
    if reserved == 7:
        raise RuntimeError("the shelf is locked")
