"""The saga as commands and replies of bare Celery: what it knows travels in the messages, nothing is kept.

A worker is of the app that it names: ``-A benchmarks.peers.celery_app:orchestrator``, ``:consumer``,
``:restaurant``, ``:accounting``.
"""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import os

from celery import Celery

BROKER = os.environ["BENCHMARK_BROKER"]
REPLIES = "replies"
DONE = "done"
STEPS = [
    ("verify", "consumer"),
    ("create_ticket", "restaurant"),
    ("authorize", "accounting"),
    ("approve_ticket", "restaurant"),
]


def make(name, queue):
    app = Celery(name, broker=BROKER)
    app.conf.task_default_queue = queue
    app.conf.task_ignore_result = True
    app.conf.worker_prefetch_multiplier = 64
    app.conf.worker_hijack_root_logger = False
    app.conf.broker_connection_retry_on_startup = True
    return app


starter = make("starter", "starter")
orchestrator = make("orchestrator", REPLIES)
consumer = make("consumer", "consumer")
restaurant = make("restaurant", "restaurant")
accounting = make("accounting", "accounting")


def reply(app, step, saga, ok=True):
    app.send_task("reply", args=[step, saga, ok], queue=REPLIES)


@consumer.task(name="verify")
def verify(step, saga):
    reply(consumer, step, {**saga, "ok": True})


@restaurant.task(name="create_ticket")
def create_ticket(step, saga):
    reply(restaurant, step, {**saga, "ticket_id": 1000 + saga["id"]})


@accounting.task(name="authorize")
def authorize(step, saga):
    reply(accounting, step, {**saga, "transaction_id": 7}, saga["amount"] < 50)


@restaurant.task(name="approve_ticket")
def approve_ticket(step, saga):
    reply(restaurant, step, {**saga, "status": "approved"})


@restaurant.task(name="reject_ticket")
def reject_ticket(step, saga):
    reply(restaurant, len(STEPS), {**saga, "status": "rejected"})


@orchestrator.task(name="reply")
def take_reply(step, saga, ok):
    if not ok:
        orchestrator.send_task("reject_ticket", args=[step, saga], queue="restaurant")
    elif step + 1 < len(STEPS):
        name, queue = STEPS[step + 1]
        orchestrator.send_task(name, args=[step + 1, saga], queue=queue)
    else:
        orchestrator.send_task("done", args=[saga], queue=DONE)
