"""A generated application that answers an orchestrator, until its input ends.

``python -m ... PACKAGE BROKER RULES``, the rules as JSON. When its input ends it writes what arrived and what
it sent. It runs alone, because generated packages share their codecs.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from operator import attrgetter
from typing import Any

from tests.asyncapi.clients.celery_wire import CeleryWire, answering, hear_no_events


async def answer(package: str, broker: str, rules: list[dict[str, Any]]) -> dict[str, Any]:
    """Answer by the rules until the input ends.

    Args:
        rules: each with ``operation`` (its key in the document), ``payload`` (it is for commands that have
            these fields), ``name`` (of the message that answers), ``message`` (the generated class of that),
            ``headers`` and ``answer``. The first that fits is taken.

    Returns:
        ``sent`` and ``arrived`` as `CeleryWire` has them.
    """
    generated = importlib.import_module(package)
    classes = importlib.import_module(f"{package}.messages.json")
    wire = CeleryWire(broker)
    application = generated.Application(wire)

    def serve(operation: str, mine: list[dict[str, Any]]) -> None:
        async def handle(command: Any) -> Any:
            (saga_id, payload), _, embed = command.model_dump(mode="json")
            rule = next(one for one in mine if one["payload"].items() <= (payload or {}).items())
            answering.set((rule["name"], rule["headers"]))
            body = [[saga_id, rule["answer"]], {}, embed]
            return getattr(classes, rule["message"]).model_validate(body)

        attrgetter(operation)(application.consumer)(handle)

    for operation in {rule["operation"]: None for rule in rules}:
        serve(operation, [rule for rule in rules if rule["operation"] == operation])
    hear_no_events(application.consumer)
    await application.start()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await application.stop()
    return {"sent": wire.sent, "arrived": wire.arrived}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(answer(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))))
