"""The saga on saga-framework 0.1: models, the saga, and the Celery apps of the four services.

A worker is of the app that it names: ``-A benchmarks.peers.saga_framework_app:orchestrator``,
``:consumer``, ``:restaurant``, ``:accounting``. Sessions are SQLAlchemy's own in place of those of
flask-sqlalchemy: they do the same, and cost no Flask.
"""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import datetime
import enum
import logging
import os

import sqlalchemy as sa
from celery import Celery
from saga_framework import (
    AbstractSagaStateRepository,
    AsyncStep,
    StatefulSaga,
    SyncStep,
    close_sqlalchemy_db_connection_after_celery_task_ends,
    no_response_saga_step_handler,
    saga_step_handler,
)
from sqlalchemy.orm import declarative_base, relationship, scoped_session, sessionmaker
from sqlalchemy_mixins import AllFeaturesMixin

BROKER = os.environ["BENCHMARK_BROKER"]
DATABASE = os.environ["BENCHMARK_DATABASE"].replace("postgresql://", "postgresql+psycopg2://")
ORCHESTRATES = (
    "BENCHMARK_ORCHESTRATES" in os.environ
)  # the driver starts sagas, participants need no database
RESPONSES = "create_order_saga_responses"
PREFETCH = 64  # a multiple of the solo pool's one; with Celery's own 4 the cores are half idle

logging.getLogger("saga_framework").setLevel(logging.CRITICAL)


def make(name, queue):
    app = Celery(name, broker=BROKER)
    app.conf.task_default_queue = queue
    app.conf.worker_prefetch_multiplier = PREFETCH
    app.conf.broker_connection_retry_on_startup = True
    app.conf.worker_hijack_root_logger = False
    return app


starter = make("starter", "starter")
orchestrator = make(RESPONSES, RESPONSES)
consumer = make("consumer", "consumer.commands")
restaurant = make("restaurant", "restaurant.commands")
accounting = make("accounting", "accounting.commands")


# ---- participants ---------------------------------------------------------------------------------


@consumer.task(bind=True, name="consumer.verify")
@saga_step_handler(response_queue=RESPONSES)
def verify(self, saga_id, payload):
    return {"ok": True}


@restaurant.task(bind=True, name="restaurant.create_ticket")
@saga_step_handler(response_queue=RESPONSES)
def create_ticket(self, saga_id, payload):
    return {"ticket_id": payload["order_id"] + 1000}


@restaurant.task(bind=True, name="restaurant.reject_ticket")
@no_response_saga_step_handler
def reject_ticket(self, saga_id, payload):
    return None


@restaurant.task(bind=True, name="restaurant.approve_ticket")
@saga_step_handler(response_queue=RESPONSES)
def approve_ticket(self, saga_id, payload):
    return {"ok": True}


@accounting.task(bind=True, name="accounting.authorize")
@saga_step_handler(response_queue=RESPONSES)
def authorize(self, saga_id, payload):
    if payload["amount"] >= 50:
        raise ValueError("card declined")
    return {"transaction_id": 7}


# ---- orchestrator ---------------------------------------------------------------------------------

if ORCHESTRATES:
    engine = sa.create_engine(DATABASE, pool_size=20)
    session = scoped_session(sessionmaker(bind=engine, autocommit=True))
    Base = declarative_base()

    class Status(enum.Enum):
        PENDING = "pending"
        APPROVED = "approved"
        REJECTED = "rejected"

    class Model(Base, AllFeaturesMixin):
        __abstract__ = True

    class Order(Model):
        __tablename__ = "orders"
        id = sa.Column(sa.Integer, primary_key=True)
        status = sa.Column(sa.Enum(Status), default=Status.PENDING)
        consumer_id = sa.Column(sa.Integer)
        card_id = sa.Column(sa.Integer)
        price = sa.Column(sa.Integer)
        transaction_id = sa.Column(sa.String)
        restaurant_ticket_id = sa.Column(sa.Integer)

    class SagaState(Model):
        __tablename__ = "saga_state"
        id = sa.Column(sa.Integer, primary_key=True)
        last_message_id = sa.Column(sa.String)
        status = sa.Column(sa.String, default="not_started")
        failed_step = sa.Column(sa.String)
        failed_at = sa.Column(sa.TIMESTAMP)
        failure_details = sa.Column(sa.JSON)
        order_id = sa.Column(sa.Integer, sa.ForeignKey("orders.id"))
        order = relationship("Order")

    Model.set_session(session)

    class Repository(AbstractSagaStateRepository):
        def get_saga_state_by_id(self, saga_id):
            return SagaState.find(saga_id)

        def update_status(self, saga_id, status):
            return self.get_saga_state_by_id(saga_id).update(status=status)

        def update(self, saga_id, **fields):
            return self.get_saga_state_by_id(saga_id).update(**fields)

        def on_step_failure(self, saga_id, failed_step, initial_failure_payload):
            return self.get_saga_state_by_id(saga_id).update(
                failed_step=failed_step.name,
                failed_at=datetime.datetime.now(datetime.UTC),
                failure_details=initial_failure_payload,
            )

    class CreateOrderSaga(StatefulSaga):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.steps = [
                SyncStep("reject_order", compensation=self.reject_order),
                AsyncStep(
                    name="verify",
                    action=self.verify,
                    base_task_name="consumer.verify",
                    queue="consumer.commands",
                ),
                AsyncStep(
                    name="create_ticket",
                    action=self.create_ticket,
                    compensation=self.reject_ticket,
                    base_task_name="restaurant.create_ticket",
                    queue="restaurant.commands",
                    on_success=self.ticket_created,
                ),
                AsyncStep(
                    name="authorize",
                    action=self.authorize,
                    base_task_name="accounting.authorize",
                    queue="accounting.commands",
                    on_success=self.authorized,
                ),
                AsyncStep(
                    name="approve_ticket",
                    action=self.approve_ticket,
                    base_task_name="restaurant.approve_ticket",
                    queue="restaurant.commands",
                ),
                SyncStep("approve_order", action=self.approve_order),
            ]

        def send(self, step, payload, **options):
            message_id = self.send_message_to_other_service(step, payload, **options)
            self.saga_state_repository.update(self.saga_id, last_message_id=message_id)

        def verify(self, step):
            self.send(step, {"consumer_id": self.saga_state.order.consumer_id})

        def create_ticket(self, step):
            order = self.saga_state.order
            items = [{"name": "Dish 1", "quantity": 2}]
            self.send(step, {"order_id": order.id, "customer_id": order.consumer_id, "items": items})

        def ticket_created(self, step, payload):
            self.saga_state.order.update(restaurant_ticket_id=payload["ticket_id"])

        def reject_ticket(self, step):
            ticket = {"ticket_id": self.saga_state.order.restaurant_ticket_id}
            self.send(step, ticket, task_name="restaurant.reject_ticket")

        def authorize(self, step):
            order = self.saga_state.order
            self.send(step, {"card_id": order.card_id, "amount": order.price})

        def authorized(self, step, payload):
            self.saga_state.order.update(transaction_id=payload["transaction_id"])

        def approve_ticket(self, step):
            self.send(step, {"ticket_id": self.saga_state.order.restaurant_ticket_id})

        def approve_order(self, step):
            self.saga_state.order.update(status=Status.APPROVED)

        def reject_order(self, step):
            self.saga_state.order.update(status=Status.REJECTED)

    close_sqlalchemy_db_connection_after_celery_task_ends(session)
    CreateOrderSaga.register_async_step_handlers(Repository(), orchestrator)

    def start(declined):
        """Start one; its id."""
        order = Order.create(consumer_id=70, card_id=3, price=80 if declined else 20)
        state = SagaState.create(order_id=order.id)
        saga_id = state.id
        CreateOrderSaga(Repository(), starter, saga_id).execute()
        session.remove()
        return saga_id
