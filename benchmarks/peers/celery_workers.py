"""Waits for Celery workers of a peer."""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

from benchmarks.driving import until


def wait_for_workers(app, wanted):
    """Wait until each queue has so many consumers; it is declared as the workers do."""
    with app.connection() as connection:
        channel = connection.channel()

        def consumers(queue):
            return channel.queue_declare(queue, durable=True, auto_delete=False).consumer_count

        until(
            lambda: all(consumers(queue) >= count for queue, count in wanted.items()),
            every=0.1,
            within=60,
            what=lambda: (
                f"consumers are { ({queue: consumers(queue) for queue in wanted}) }, wanted: {wanted}"
            ),
        )
