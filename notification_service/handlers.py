"""What this service does when somebody is told something."""

from __future__ import annotations

from pathlib import Path

from app_common.messaging.accounting_service_messaging import PaymentRefunded
from app_common.messaging.inventory_service_messaging import LowStock
from app_common.messaging.notification_service_messaging import notification_service
from app_common.messaging.order_service_messaging import CustomerTold
from app_common.money import written
from app_common.settings import service_settings
from app_common.texts import isolated
from notification_service import notifications
from sagas_framework import EventContext, Subscriber

settings = service_settings("notification_service")
subscriber = Subscriber(
    notification_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@subscriber.subscribes(CustomerTold)
def customer_told(event: CustomerTold, context: EventContext) -> None:
    """Keep what the customer of an order was told."""
    notifications.keep(context.session, context.event_id, event.message, context.at, order_id=event.order_id)


@subscriber.subscribes(PaymentRefunded)
def payment_refunded(event: PaymentRefunded, context: EventContext) -> None:
    """Tell the customer of an order about the refund, also one who was never told of the payment."""
    told = f"Payment of {written(event.amount)} was refunded"
    notifications.keep(context.session, context.event_id, told, context.at, order_id=event.order_id)


@subscriber.subscribes(LowStock)
def stock_low(event: LowStock, context: EventContext) -> None:
    """Keep for the operators that an item is low."""
    left = f"{event.available:,} left" if event.available else "none left"
    notifications.keep(
        context.session, context.event_id, f"{isolated(event.item)} is low: {left}", context.at
    )
