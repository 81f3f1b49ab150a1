"""The saga on DBOS Transact. Each role's process serves the queue of its name; the driver enqueues.

With ``services`` each participant's work is a workflow on its own queue, with ``local`` a step of the
saga's workflow, in one process.
"""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import os
import signal
import threading

from dbos import DBOS

ROLE = os.environ["BENCHMARK_ROLE"]
POLL = 0.02  # seconds, for queues and for results of children
QUEUES = ("orders", "consumer", "restaurant", "accounting")

DBOS(
    config={
        "name": "benchmark",
        "system_database_url": os.environ["BENCHMARK_DATABASE"],
        "application_version": "1",
        "executor_id": ROLE,
        "sys_db_pool_size": 20,
        "log_level": "ERROR",
        "max_executor_threads": 64,
        "notification_listener_polling_interval_sec": 0.01,
    }
)


# ---- what is done ---------------------------------------------------------------------------------


def verify(saga):
    return {"ok": True}


def create_ticket(saga):
    return {"ticket_id": saga["id"] + 1000}


def authorize(saga):
    # A refused card is an ordinary answer; an exception would be pickled with its traceback.
    return {"declined": True} if saga["amount"] >= 50 else {"transaction_id": 7}


def approve_ticket(saga):
    return {"ok": True}


def reject_ticket(saga):
    return {"ok": True}


@DBOS.step()
def order_status(saga, status):
    return {**saga, "status": status}


def create_order(saga, call):
    """The saga; `call` does a participant's work and gives its answer."""
    saga = order_status(saga, "pending")
    call("verify", saga)
    saga = {**saga, **call("create_ticket", saga)}
    answer = call("authorize", saga)
    if answer.get("declined"):
        call("reject_ticket", saga)
        return order_status(saga, "rejected")["status"]
    saga = {**saga, **answer}
    call("approve_ticket", saga)
    return order_status(saga, "approved")["status"]


# ---- how it is done -------------------------------------------------------------------------------

WORK = {
    "verify": ("consumer", verify),
    "create_ticket": ("restaurant", create_ticket),
    "authorize": ("accounting", authorize),
    "approve_ticket": ("restaurant", approve_ticket),
    "reject_ticket": ("restaurant", reject_ticket),
}
REMOTE = {name: (queue, DBOS.workflow()(work)) for name, (queue, work) in WORK.items()}
LOCAL = {name: DBOS.step()(work) for name, (_, work) in WORK.items()}


def _call_remote(name, saga):
    queue, work = REMOTE[name]
    return DBOS.enqueue_workflow(queue, work, saga).get_result(polling_interval_sec=POLL)


@DBOS.workflow()
def services_saga(saga):
    return create_order(saga, _call_remote)


@DBOS.workflow()
def local_saga(saga):
    return create_order(saga, lambda name, given: LOCAL[name](given))


def register_queues():
    for queue in QUEUES:
        DBOS.register_queue(
            queue, polling_interval_sec=POLL, on_conflict="always_update", worker_concurrency=50
        )


def main():
    DBOS.listen_queues([ROLE])
    DBOS.launch()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    DBOS.destroy(workflow_completion_timeout_sec=0)
    os._exit(0)


if __name__ == "__main__":
    main()
