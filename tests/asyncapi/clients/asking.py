"""A generated client that asks a service: ``python -m ... PACKAGE BROKER``, what to ask on its input.

On its input it gets a JSON list of questions, on its output it writes what it sent, what arrived and what the
generated classes made of the answers. It runs alone, because generated packages share their codecs.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from operator import attrgetter
from typing import Any

from tests.asyncapi.clients.celery_wire import CeleryWire, hear_no_events

WITHIN = 30.0
"""Seconds for an answer."""


async def ask(package: str, broker: str, questions: list[dict[str, Any]]) -> dict[str, Any]:
    """Ask one question after the other.

    Args:
        questions: each with ``operation`` (its key in the document), ``message`` (the name of the generated
            class) and ``body``.

    Returns:
        ``answers`` (each with ``message`` and ``body``), ``sent`` and ``arrived`` as `CeleryWire` has them.
    """
    generated = importlib.import_module(package)
    classes = importlib.import_module(f"{package}.messages.json")
    wire = CeleryWire(broker)
    client = generated.Application(wire)
    hear_no_events(client.consumer)
    await client.start()
    answers = []
    for question in questions:
        message = getattr(classes, question["message"]).model_validate(question["body"])
        endpoint = attrgetter(question["operation"])(client.producer)
        answer = await endpoint(message, timeout=WITHIN)
        answers.append({"message": type(answer).__name__, "body": answer.model_dump(mode="json")})
    await client.stop()
    return {"answers": answers, "sent": wire.sent, "arrived": wire.arrived}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(ask(sys.argv[1], sys.argv[2], json.load(sys.stdin)))))
