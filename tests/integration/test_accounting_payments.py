"""Payments on real databases: charged once, refunded once, and the books agree with the provider's."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC
from decimal import Decimal
from threading import Barrier
from typing import Any, Final

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from accounting_service import payments
from accounting_service.models import ChargeRow, ProviderPayment, RefundRow
from accounting_service.payments import Books
from accounting_service.provider import Declined, ImitatedProvider
from app_common.magic import DECLINED_CUSTOMER
from app_common.messaging.accounting_service_messaging import Charge, PaymentRefunded, Refund
from sagas_framework import Participant, publish
from tests.integration.asking import Asking, answer, serving, session_of, told

REFUNDED: Final = PaymentRefunded.contract.task


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def accounting(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    with serving("accounting_service", request.getfixturevalue(request.param), monkeypatch) as participant:
        yield participant


def paying(amount: str = "1299.00", customer: str = "Riley", order: str = "order_riley_o066i") -> Charge:
    return Charge(order_id=order, customer=customer, amount=Decimal(amount))


def books(accounting: Participant) -> Books:
    with session_of(accounting) as session:
        return payments.books(session)


def test_without_payments_the_books_agree(accounting: Participant) -> None:
    assert books(accounting) == Books(Decimal("0.00"), Decimal("0.00"), Decimal("0.00"), [])
    assert books(accounting).agree


def test_a_customer_is_charged_once_whatever_comes_twice(accounting: Participant) -> None:
    asking = Asking(accounting)

    results = [asking(paying()), asking(paying()), asking(paying(), attempt=2)]

    assert results == [results[0]] * 3
    assert results[0][0] == "success"
    assert books(accounting).kept == Decimal("1299.00")
    assert books(accounting).agree
    with session_of(accounting) as session:
        (payment,) = session.scalars(select(ProviderPayment))
        (charge,) = session.scalars(select(ChargeRow))
        assert (payment.requests, payment.idempotency_key) == (1, charge.operation_key)
        assert (charge.amount, charge.customer, charge.order_id) == (
            Decimal("1299.00"),
            "Riley",
            "order_riley_o066i",
        )
        assert charge.at.tzinfo is UTC


@pytest.mark.parametrize("name", [DECLINED_CUSTOMER, DECLINED_CUSTOMER.upper(), f" {DECLINED_CUSTOMER} "])
def test_the_provider_declines_a_customer_without_money(accounting: Participant, name: str) -> None:
    result, said = Asking(accounting)(paying("10.00", customer=name))

    assert (result, said["type"]) == ("refused", "PaymentDeclined")
    assert said["message"] == f"The payment of 10.00 by {name} was declined"
    assert books(accounting).charged == 0
    assert books(accounting).agree


def test_a_charge_is_refunded_once(accounting: Participant) -> None:
    asking, other = Asking(accounting), Asking(accounting)
    _, reply = asking(paying("0.10"))
    other(paying("0.20", order="order_casey_1irq1"))
    refund = Refund(charge_id=reply["charge_id"])

    assert [asking(refund, known=True), asking(refund, known=True, attempt=2)] == [("success", None)] * 2
    after = books(accounting)
    assert (after.charged, after.refunded, after.kept) == (Decimal("0.30"), Decimal("0.10"), Decimal("0.20"))
    assert after.agree
    assert told(accounting) == [(REFUNDED, {"order_id": "order_riley_o066i", "amount": "0.10"})]


def test_a_refund_of_what_the_saga_never_heard_of_is_told_once(accounting: Participant) -> None:
    asking = Asking(accounting)
    asking(paying())  # its reply is lost

    assert [asking(Refund(charge_id=None)), asking(Refund(charge_id=None), attempt=2)] == [
        ("success", None)
    ] * 2
    assert told(accounting) == [(REFUNDED, {"order_id": "order_riley_o066i", "amount": "1299.00"})]


def test_that_a_payment_is_refunded_is_told_with_the_refund_or_not_at_all(
    accounting: Participant, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = Asking(accounting)
    asking(paying())
    with monkeypatch.context() as patched:
        patched.setattr(payments, "publish", publish_and_break)
        broken = asking(Refund(charge_id=None))
    kept, nothing = books(accounting).kept, told(accounting)

    again = asking(Refund(charge_id=None), attempt=2)

    assert (broken[0], kept, nothing) == ("failed", Decimal("1299.00"), [])
    assert again == ("success", None)
    assert books(accounting).kept == 0
    assert len(told(accounting)) == 1


def publish_and_break(event: PaymentRefunded, session: Session) -> None:
    publish(event, session)
    raise RuntimeError("the process has no memory left")


def test_in_a_batch_those_are_told_of_a_refund_who_had_paid(accounting: Participant) -> None:
    who = ["Riley", DECLINED_CUSTOMER, "Casey"]
    asking = [Asking(accounting) for _ in [*who, "nobody asked for this one"]]
    for number, (one, name) in enumerate(zip(asking, who, strict=False)):
        one(paying("3.00", customer=name, order=f"order_{number}"))

    replies = accounting.receive_all([one.message(Refund(charge_id=None)) for one in asking])

    assert [answer(reply)[0] for reply in replies] == ["success"] * 4
    assert told(accounting) == [
        (REFUNDED, {"order_id": f"order_{number}", "amount": "3.00"}) for number in (0, 2)
    ]


def test_refunding_first_withdraws_the_charge_that_comes_later(accounting: Participant) -> None:
    asking = Asking(accounting)

    assert asking(Refund(charge_id=None)) == ("success", None)
    assert asking(paying())[1]["type"] == "Withdrawn"
    assert books(accounting).charged == 0
    assert told(accounting) == []


def test_a_double_charge_would_be_seen(accounting: Participant) -> None:
    """By two operations for one order, and by a provider who took what nobody here knows of."""
    Asking(accounting)(paying("5.00"))
    Asking(accounting)(paying("5.00"))
    twice = books(accounting)
    with session_of(accounting) as session:
        ImitatedProvider(session).charge("a key of nobody", "Riley", Decimal("7.00"))
    taken = books(accounting)

    assert twice.charged_twice == ["order_riley_o066i"]
    assert not twice.agree
    assert taken.provider_kept - taken.kept == Decimal("7.00")
    assert not taken.agree


def test_an_order_that_paid_again_after_a_refund_was_not_charged_twice(accounting: Participant) -> None:
    first = Asking(accounting)
    _, reply = first(paying("5.00"))
    first(Refund(charge_id=reply["charge_id"]), known=True)
    Asking(accounting)(paying("5.00"))

    assert books(accounting).agree
    assert books(accounting).kept == Decimal("5.00")


@pytest.mark.parametrize("amount", ["0", "0.01", "9999999999.99"])
def test_every_cent_is_kept(accounting: Participant, amount: str) -> None:
    for number in range(3):
        Asking(accounting)(paying(amount, order=f"order_{number}"))

    assert books(accounting).kept == Decimal(amount) * 3
    assert books(accounting).agree


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": "-0.01"},
        {"amount": 12.5},
        {"amount": "1.001"},
        {"amount": "12345678901.00"},
        {"amount": "NaN"},
        {"amount": "much"},
        {"amount": None},
        {"customer": ""},
        {"customer": "Ri\u0000ley"},
        {"order_id": ""},
        {"order_id": None},
    ],
)
def test_a_payment_that_cannot_be_is_refused(accounting: Participant, changes: dict[str, Any]) -> None:
    message = Asking(accounting).message(Charge, payload=paying().to_json() | changes)

    result, said = answer(accounting.receive(message))

    assert (result, said["type"]) == ("refused", "InvalidPayload")
    assert books(accounting).charged == 0


def test_in_a_batch_each_is_charged_or_declined_alone(accounting: Participant) -> None:
    who = ["Riley", DECLINED_CUSTOMER, "Casey", DECLINED_CUSTOMER]
    messages = [
        Asking(accounting).message(paying("3.00", customer=name, order=f"order_{number}"))
        for number, name in enumerate(who)
    ]

    results = [answer(reply)[0] for reply in accounting.receive_all(messages)]

    assert results == ["success", "refused"] * 2
    assert books(accounting).kept == Decimal("6.00")
    assert books(accounting).agree


def test_a_charge_and_its_refund_at_once_leave_nothing_kept(accounting: Participant) -> None:
    together = Barrier(2)

    def race(asking: Asking, asked: Charge | Refund) -> tuple[str, Any]:
        together.wait(20)
        while (said := asking(asked))[0] == "nothing":
            pass  # the other is at it, so the orchestrator would send again
        return said

    with ThreadPoolExecutor(2) as pool:
        for number in range(5):
            asking = Asking(accounting)
            charged = pool.submit(race, asking, paying(order=f"order_{number}"))
            refunded = pool.submit(race, asking, Refund(charge_id=None))
            assert refunded.result(20) == ("success", None)
            assert charged.result(20)[0] in ("success", "refused")

    assert books(accounting).kept == 0
    assert books(accounting).agree
    with session_of(accounting) as session:
        assert len(told(accounting)) == len(session.scalars(select(RefundRow)).all())


def test_the_provider_answers_a_known_key_as_before_and_refuses_it_for_another_payment(
    accounting: Participant,
) -> None:
    with session_of(accounting) as session:
        provider = ImitatedProvider(session)
        for _ in range(2):
            provider.charge("key", "Riley", Decimal("1.00"))
        with pytest.raises(ValueError, match="used for another payment"):
            provider.charge("key", "Riley", Decimal("2.00"))
        with pytest.raises(Declined):
            provider.charge("other", DECLINED_CUSTOMER, Decimal("1.00"))
        provider.refund("key")
        provider.refund("key")
        provider.refund("a key that nobody knows")

    with session_of(accounting) as session:
        (payment,) = session.scalars(select(ProviderPayment))
        assert (payment.amount, payment.refunded, payment.requests) == (Decimal("1.00"), Decimal("1.00"), 2)
        assert session.scalars(select(RefundRow)).all() == []
