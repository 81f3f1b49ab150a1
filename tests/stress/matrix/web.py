"""The web process, driven through its standard input: a line of JSON for each batch of orders.

``{"prefix": "...", "prices": [20, ...], "told": true}``: post an order for each price, and tell of each in
an event. The idempotency key is the prefix and the order's place, so whoever is not answered asks again. When
all were taken, it says so.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Final

from flask.testing import FlaskClient
from sqlalchemy import exists, select
from sqlalchemy.exc import DBAPIError

from app_common.messaging.order_service_messaging import CustomerTold
from order_service.launches import an_order
from order_service.orchestrator import sagas
from order_service.web import create_app
from sagas_framework import publish
from sagas_framework.storage.tables import saga_outbox
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


def tell(key: str) -> None:
    """Publish that the order was taken, once: whoever does not know whether it was written looks first."""
    written = exists().where(saga_outbox.c.body.contains(f'"{key}"', autoescape=True))
    while True:
        try:
            with sagas.engine.begin() as connection:
                if not connection.execute(select(written)).scalar_one():
                    publish(CustomerTold(order_id=key, message="it was taken"), connection)
        except (DBAPIError, OSError):
            time.sleep(_PAUSE)
        else:
            return


def main() -> None:
    saboteur.begin()
    client = create_app().test_client()
    for line in sys.stdin:
        asked = json.loads(line)
        refused = 0
        for number, price in enumerate(asked["prices"]):
            key = f"{asked['prefix']}{number}"
            refused += post(client, key, price)
            if asked["told"]:
                tell(key)
        print(json.dumps({"prefix": asked["prefix"], "refused": refused}), flush=True)


if __name__ == "__main__":
    main()
