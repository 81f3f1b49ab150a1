"""A mill that publishes an event, and a shop and an inn that subscribe to it, as their documents have it."""

from __future__ import annotations

from sagas_framework import Event, EventContext, Service, Subscriber
from sagas_framework.asyncapi import Contact, License, Specification

mill = Service("documented_mill")
shop = Service("documented_shop")
inn = Service("documented_inn")


class Sack(Event, service=mill, name="sack_filled"):
    """A sack is full.

    It stands at the door.
    """

    kilos: int


def ignore(event: Sack, context: EventContext) -> None: ...


def subscriber_of(service: Service) -> Subscriber:
    subscriber = Subscriber(service, database="sqlite://")
    subscriber.subscribes(Sack, name="one")(ignore)
    subscriber.subscribes(Sack, name="two")(ignore)
    return subscriber


def specified(service: Service, subscriber: Subscriber | None = None) -> Specification:
    return Specification(
        service.name,
        title=service.name.title(),
        version="1.0.0",
        description="Of a test.",
        contact=Contact("us", "https://example.com", "us@example.com"),
        license=License("MIT", "https://example.com/mit"),
        broker="amqp://guest:guest@localhost//",
        subscribes=subscriber,
    )


def described() -> list[Specification]:
    """What the three of them say."""
    return [specified(mill), specified(shop, subscriber_of(shop)), specified(inn, subscriber_of(inn))]
