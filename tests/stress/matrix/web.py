"""The web process, driven through its standard input: a line of JSON for each batch of orders.

``{"prefix": "...", "prices": [20, ...]}``: post an order for each price. The idempotency key is the
prefix and the order's place, so whoever is not answered asks again. When all were taken, it says so.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

from flask.testing import FlaskClient

from order_service.launches import an_order
from order_service.web import create_app
from tests.stress.matrix import saboteur

_PAUSE: Final = 0.2  # seconds before asking again


def post(client: FlaskClient, key: str, price: int) -> int:
    """Post an order until it is taken; how often it was refused before."""
    refused = 0
    while True:
        body = an_order(price=price).model_dump(mode="json")
        response = client.post("/orders", json=body, headers={"Idempotency-Key": key})
        if response.status_code == 202:
            return refused
        if response.status_code < 500:
            raise RuntimeError(f"the order was refused: {response.get_data(as_text=True)}")
        refused += 1
        time.sleep(_PAUSE)


def main() -> None:
    saboteur.begin()
    client = create_app().test_client()
    for line in sys.stdin:
        asked = json.loads(line)
        refused = sum(
            post(client, f"{asked['prefix']}{number}", price) for number, price in enumerate(asked["prices"])
        )
        print(json.dumps({"prefix": asked["prefix"], "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
