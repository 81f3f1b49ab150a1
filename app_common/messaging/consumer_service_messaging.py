"""What the consumer service is asked: do we deliver to this consumer?"""

from pydantic import Field

from sagas_framework import Command, Failure, Service

consumer_service = Service("consumer_service")


class IncorrectConsumerId(Failure):
    """The consumer is not one that we deliver to."""


class VerifyConsumerDetails(
    Command[None], service=consumer_service, name="verify_consumer_details", failures=[IncorrectConsumerId]
):
    """Say whether the consumer may order."""

    consumer_id: int = Field(examples=[70])
