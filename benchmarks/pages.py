"""How fast the pages are: ``.venv/bin/python -m benchmarks.pages``.

Two figures were promised: lists and searches under 100 ms with 200,000 sagas, and the end of a saga
on screen within a second of its end in the database. The first is measured on PostgreSQL, through the
whole web application; the second on the demo, in a real browser. Run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psycopg
from playwright.sync_api import Page

from app_common.running import ORCHESTRATOR
from tools.browser import browser
from tools.pictures import address, demo

SAGAS: Final = 200_000
ROUNDS: Final = 20
BROWSER: Final = {"Accept": "text/html"}

# 75 % completed, 22 % compensated, 2 % running, 0.4 % compensating, 0.1 % parked; a state and steps of
# about 1 kB, as the order platform has them. Ids begin with their time, as those of real sagas do.
_FILL: Final = """
INSERT INTO saga_instance (id, saga, version, shape, key, status, outcome, outcome_kind, state, steps,
    revision, started, digest, created_at, updated_at, ended_at, due_at, cause, waits_for, waits_since,
    stuck_for, late)
SELECT
    (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
        || '8' || substr(md5(n::text), 4, 15))::uuid::text,
    'create_order', 1, 'benchmark', 'order-' || n, status,
    CASE WHEN kind IS NOT NULL THEN
        json_build_object('kind', kind, 'name', 'Reason', 'message', 'why', 'step', 'authorize_card') END,
    kind, state, steps, 12, true, md5(n::text), at, at,
    CASE WHEN status IN ('completed', 'compensated') THEN at + interval '1 second' END, NULL,
    CASE status WHEN 'parked' THEN 'person'
        WHEN 'running' THEN 'answer' WHEN 'compensating' THEN 'answer' END,
    CASE status WHEN 'parked' THEN 'create_restaurant_ticket'
        WHEN 'running' THEN 'accounting_service.authorize_card'
        WHEN 'compensating' THEN 'restaurant_service.reject_ticket' END,
    CASE WHEN status IN ('parked', 'running', 'compensating') THEN at END,
    CASE status WHEN 'parked' THEN 'create_restaurant_ticket'
        WHEN 'running' THEN 'accounting_service.authorize_card'
        WHEN 'compensating' THEN 'restaurant_service.reject_ticket' END, false
FROM (
    SELECT n, now() - (%(sagas)s - n) * interval '1 second' AS at,
        CASE WHEN n %% 1000 < 750 THEN 'completed' WHEN n %% 1000 < 975 THEN 'compensated'
            WHEN n %% 1000 < 995 THEN 'running' WHEN n %% 1000 < 999 THEN 'compensating'
            ELSE 'parked' END AS status,
        CASE WHEN n %% 1000 < 750 THEN 'ok' WHEN n %% 1000 < 975 THEN
            (ARRAY['refused', 'failed', 'cancelled', 'expired'])[1 + n %% 4]
            WHEN n %% 1000 < 995 THEN NULL ELSE 'refused' END AS kind
    FROM generate_series(1, %(sagas)s) AS n
) AS made, (SELECT %(state)s::json AS state, %(steps)s::json AS steps) AS bodies
"""

_PATHS: Final = {
    "home": "/",
    "open (default)": "/sagas/",
    "parked": "/sagas/?status=parked",
    "completed": "/sagas/?status=completed",
    "all": "/sagas/?status=all",
    "by key": "/sagas/?key=order-123456",
    "by a key that is not there": "/sagas/?key=nobody",
    "by outcome": "/sagas/?status=all&outcome=cancelled",
    "by what it waits for": "/sagas/?waits=accounting_service.authorize_card",
    "older than a day": "/sagas/?status=all&older=1d",
    "what is stuck": "/sagas/stuck",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", default="postgresql://postgres@127.0.0.1/postgres")
    parser.add_argument("--sagas", type=int, default=SAGAS)
    arguments = parser.parse_args()
    with database(arguments.postgres) as url:
        measure_lists(url, arguments.sagas)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as ports, browser() as chromium:
        measure_the_end_on_screen(address(ports, ORCHESTRATOR), chromium.new_page())
    return 0


# ---- lists ----------------------------------------------------------------------------------------


@contextmanager
def database(server: str) -> Iterator[str]:
    """A database that is dropped afterwards."""
    name = f"sagas_benchmark_{uuid4().hex[:8]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        try:
            yield re.sub(r"/[^/]*$", f"/{name}", server)
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def measure_lists(url: str, sagas: int) -> None:
    os.environ["APP_SQLALCHEMY_DATABASE_URI"] = url
    from order_service import orchestrator, web  # they read the address when they are imported

    orchestrator.sagas.upgrade()
    fill(url, sagas)
    client = web.create_app().test_client()
    print(f"{sagas:,} sagas on PostgreSQL; milliseconds of {ROUNDS} requests, through Flask")
    print(f"{'page':28} {'median':>8} {'slowest':>8}")
    first: Any = client.get("/sagas/?status=all", headers={"Accept": "application/json"}).json
    for name, path in {**_PATHS, "second page of all": first["next"]}.items():
        client.get(path, headers=BROWSER)  # the first connects and compiles
        times = [timed(client, path) for _ in range(ROUNDS)]
        print(f"{name:28} {statistics.median(times):8.1f} {max(times):8.1f}")


def timed(client: Any, path: str) -> float:
    began = time.perf_counter()
    answer = client.get(path, headers=BROWSER)
    took = (time.perf_counter() - began) * 1000
    if answer.status_code != 200:
        raise SystemExit(f"{path} answered {answer.status_code}: {answer.text[:500]}")
    return took


def fill(url: str, sagas: int) -> None:
    """So many instances, set-wise."""
    state = {"order_id": 1, "consumer_id": 70, "card_id": 1, "amount": "20.00", "note": "x" * 300}
    names = ("reject_order", "verify_consumer_details", "create_restaurant_ticket", "authorize_card")
    steps = [{"name": name, "phase": "succeeded", "attempts": 1, "reply": {"id": 7}} for name in names]
    steps += [{"name": name} for name in ("approve_restaurant_ticket", "approve_order")]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_FILL, {"sagas": sagas, "state": json.dumps(state), "steps": json.dumps(steps)})
        connection.execute("VACUUM ANALYZE")


# ---- the end on screen ----------------------------------------------------------------------------


def measure_the_end_on_screen(home: str, page: Page) -> None:
    print(f"\nSeconds from a saga's end in the database to its end on screen, {ROUNDS} sagas")
    late = []
    for _ in range(ROUNDS):
        page.goto(home)
        page.locator('form[action="/run-saga-where-compensation-fails-and-recovers"] button').click()
        page.wait_for_url("**/sagas/*")
        while "compensated" not in (page.locator("h1").text_content() or ""):
            time.sleep(0.01)
        seen = datetime.now(UTC)
        request = urllib.request.Request(page.url, headers={"Accept": "application/json"})
        with urllib.request.urlopen(request) as answer:
            late.append((seen - datetime.fromisoformat(json.load(answer)["ended_at"])).total_seconds())
    print(f"median {statistics.median(late):.2f}, slowest {max(late):.2f}")


if __name__ == "__main__":
    sys.exit(main())
