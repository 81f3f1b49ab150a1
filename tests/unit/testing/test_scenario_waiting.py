"""A scenario of a saga that waits."""

from __future__ import annotations

import pytest

from sagas_framework import Status
from sagas_framework.testing import scenario
from tests.unit.core.stories import ApproveTicket, CreateTicket, OrderState, RejectTicket, VerifyConsumer
from tests.unit.core.test_decide_waiting import Approval, ApprovedOrderSaga, DelayedSaga, Withdrawal


def test_an_approval_leads_on() -> None:
    (
        scenario(ApprovedOrderSaga, OrderState())
        .expects(CreateTicket).replies(ticket_id=7)
        .waits("approve")
        .signalled(Approval(approver="ann"))
        .expects(VerifyConsumer).replies()
        .expects(ApproveTicket).replies()
        .signalled(Withdrawal(), too_late=True)
        .ends(Status.COMPLETED)
    )  # fmt: skip


def test_an_approval_that_comes_early_is_kept() -> None:
    (
        scenario(ApprovedOrderSaga, OrderState())
        .signalled(Approval(approver="ann"))
        .expects(CreateTicket).replies(ticket_id=7)
        .expects(VerifyConsumer).replies()
    )  # fmt: skip


def test_a_no_and_an_expiry_undo_what_was_done() -> None:
    for how in ("no", "expiry"):
        story = scenario(ApprovedOrderSaga, OrderState()).expects(CreateTicket).replies(ticket_id=7)
        if how == "no":
            story.signalled(Approval(approver="ann", approved=False))
        else:
            story.in_vain("approve")
        story.expects(RejectTicket, ticket_id=7).replies().ends(Status.COMPENSATED)


def test_a_delay_passes() -> None:
    scenario(DelayedSaga, OrderState()).waits("cool_down").in_vain("cool_down").expects(
        VerifyConsumer
    ).replies()


def test_a_story_that_goes_another_way_says_how() -> None:
    story = scenario(ApprovedOrderSaga, OrderState()).expects(CreateTicket).replies(ticket_id=7)

    with pytest.raises(AssertionError, match="expected approval to be too late, but it was taken, or kept"):
        story.signalled(Approval(approver="ann"), too_late=True)
    with pytest.raises(AssertionError, match="expected approve to wait, but it sent"):
        story.waits("approve")
