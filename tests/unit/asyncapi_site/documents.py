"""AsyncAPI documents written by hand, as small as they may be, also as other tools write them."""

from __future__ import annotations

from typing import Any


def document(title: str, *operations: dict[str, Any], channels: dict[str, Any]) -> dict[str, Any]:
    """A document with these operations, whose keys are in them as ``key``."""
    return {
        "asyncapi": "3.1.0",
        "info": {"title": title, "version": "1.0.0"},
        "channels": channels,
        "operations": {
            one["key"]: {name: part for name, part in one.items() if name != "key"} for one in operations
        },
    }


def operation(
    action: str, channel: str, *, reply: str | None = None, tags: tuple[str, ...] = (), key: str = ""
) -> dict[str, Any]:
    """An operation on the channel; it is called ``send_orders`` where it sends to ``orders``."""
    made: dict[str, Any] = {
        "key": key or f"{action}_{channel}",
        "action": action,
        "channel": {"$ref": f"#/channels/{channel.replace('~', '~0').replace('/', '~1')}"},
        "tags": [{"name": tag} for tag in tags],
    }
    if reply is not None:
        made["reply"] = {"channel": {"$ref": f"#/channels/{reply}"}}
    return made


def channel(address: str | None, *messages: str, title: str = "") -> dict[str, Any]:
    """A channel on the queue with messages of these names."""
    made: dict[str, Any] = {"address": address, "messages": {name: {"name": name} for name in messages}}
    return made | ({"title": title} if title else {})


def asker(title: str = "Shop", queue: str = "kitchen.commands") -> dict[str, Any]:
    """It sends ``kitchen.cook`` and is answered on its own queue."""
    return document(
        title,
        operation("send", "kitchen.cook", reply="replies", tags=("command", "dinner")),
        channels={
            "kitchen.cook": channel(queue, "kitchen.cook", title="Cook"),
            "replies": channel("shop.replies", *_REPLIES),
        },
    )


def answerer(title: str = "Kitchen", queue: str = "kitchen.commands") -> dict[str, Any]:
    """It receives ``kitchen.cook`` and answers wherever it is asked to."""
    return document(
        title,
        operation("receive", "kitchen.cook", reply="replies", tags=("command",)),
        channels={
            "kitchen.cook": channel(queue, "kitchen.cook", title="Cook"),
            "replies": channel(None, *_REPLIES),
        },
    )


_REPLIES = (
    "kitchen.cook.response.success",
    "kitchen.cook.response.failure.Closed",
    "kitchen.cook.response.failure",
)
