"""A restaurant as it was written with PyPI's saga-framework 0.1, on an old Celery: nothing here is ours.

Run by `tests/integration/test_old_participants.py` as a worker of its own, in the environment that
`make .venv-old/.installed` makes. What each task was called with is a line of the file
`RESTAURANT_DIARY`.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery
from saga_framework import (
    auto_retry_then_reraise,
    no_response_saga_step_handler,
    saga_step_handler,
)

RESPONSES = "create_order_saga_responses"

app = Celery("restaurant", broker=os.environ["RESTAURANT_BROKER"])
app.conf.task_default_queue = "restaurant_service.commands"


def note(*told: object) -> None:
    with Path(os.environ["RESTAURANT_DIARY"]).open("a") as diary:
        diary.write(" ".join(map(str, told)) + "\n")


@app.task(bind=True, name="restaurant_service.create_ticket")
@saga_step_handler(response_queue=RESPONSES)
def create_ticket(self: Any, saga_id: str, payload: dict[str, Any]) -> dict[str, Any]:
    note("create", payload["dish"])
    if payload["dish"] == "unknown":
        raise ValueError("Nobody here can cook that")
    return {"ticket_id": 7}


@app.task(bind=True, name="restaurant_service.reject_ticket")
@no_response_saga_step_handler
def reject_ticket(self: Any, saga_id: str, payload: dict[str, Any]) -> None:
    note("reject", payload["ticket_id"])


@app.task(bind=True, name="restaurant_service.print_menu")
@no_response_saga_step_handler
def print_menu(self: Any, saga_id: str, payload: dict[str, Any]) -> None:
    note("print", payload["dish"])


@app.task(bind=True, name="restaurant_service.approve_ticket")
@saga_step_handler(response_queue=RESPONSES)
@auto_retry_then_reraise(max_retries=2, countdown=0)
def approve_ticket(self: Any, saga_id: str, payload: dict[str, Any]) -> None:
    note("approve", payload["ticket_id"], "retry", self.request.retries)
    if self.request.retries < payload["busy_for"]:
        raise OSError("The kitchen is busy")
