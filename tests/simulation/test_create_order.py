"""The application's own saga, as its authors would test it."""

from __future__ import annotations

import os
from decimal import Decimal
from typing import Final

import pytest

from app_common.messaging import accounting_service_messaging as accounting
from app_common.messaging import consumer_service_messaging as consumer
from app_common.messaging import restaurant_service_messaging as restaurant
from order_service.sagas.create_order import CreateOrderSaga, CreateOrderState
from sagas_framework import Status
from sagas_framework.testing import Scenario, Simulation, scenario

RUNS: Final = int(os.environ.get("SAGAS_SIMULATION_RUNS", "300"))
AN_ORDER: Final = CreateOrderState(
    order_id=1,
    consumer_id=50,
    card_id=4,
    amount=Decimal("12.30"),
    items=[restaurant.OrderItem(name="pizza", quantity=2)],
)


def authorized() -> Scenario[CreateOrderState]:
    return (
        scenario(CreateOrderSaga, AN_ORDER)
        .expects(consumer.VerifyConsumerDetails, consumer_id=50)
        .replies()
        .expects(restaurant.CreateTicket, order_id=1)
        .replies(ticket_id=7)
        .expects(accounting.AuthorizeCard, amount=Decimal("12.30"))
        .replies(transaction_id=9)
    )


def test_an_order_that_everybody_accepts_is_approved() -> None:
    (
        authorized()
        .expects(restaurant.ApproveTicket, ticket_id=7)
        .replies()
        .runs("approve_order")
        .ends(Status.COMPLETED)
    )


def test_an_order_whose_ticket_is_not_approved_gives_the_money_back_then_the_ticket() -> None:
    (
        authorized()
        .expects(restaurant.ApproveTicket)
        .refuses("rejected before")
        .expects(accounting.ReverseAuthorization, transaction_id=9)
        .replies()
        .expects(restaurant.RejectTicket, ticket_id=7)
        .replies()
        .runs("reject_order", undo=True)
        .ends(Status.COMPENSATED)
    )


@pytest.mark.timeout(600)
def test_whichever_two_faults_there_are_an_order_is_approved_or_leaves_nothing() -> None:
    explored = Simulation(CreateOrderSaga, AN_ORDER).exhaust(2)

    assert explored.schedules > 15_000


@pytest.mark.timeout(600)
def test_whatever_fails_an_order_is_approved_or_leaves_nothing() -> None:
    Simulation(CreateOrderSaga, AN_ORDER).check(RUNS)
