"""Ids that every process derives alike."""

from __future__ import annotations

from uuid import UUID, uuid5

from hypothesis import given
from hypothesis.strategies import text, uuids

from sagas_framework.core.ids import Kind, message_id, operation_id
from tests.unit.core.stories import SAGA_ID

ANOTHER = "01890a5d-ac96-774b-bcce-b302099a8058"


def test_the_operation_id_is_one_per_step_and_saga() -> None:
    ids = {operation_id(saga, step) for saga in (SAGA_ID, ANOTHER) for step in ("one", "two")}

    assert len(ids) == 4
    assert operation_id(SAGA_ID, "one") == str(uuid5(UUID(SAGA_ID), "one"))


def test_the_message_id_is_one_per_step_kind_and_attempt() -> None:
    ids = {
        message_id(saga, step, kind, attempt)
        for saga in (SAGA_ID, ANOTHER)
        for step in ("one", "two")
        for kind in Kind
        for attempt in (1, 2, 11)
    }

    assert len(ids) == 2 * 2 * 3 * 3


def test_a_message_id_is_never_an_operation_id() -> None:
    assert message_id(SAGA_ID, "one", Kind.DO, 1) != operation_id(SAGA_ID, "one")


def test_ids_are_what_former_releases_derived() -> None:
    """A running saga's answers would match nothing if these changed."""
    assert operation_id(SAGA_ID, "authorize_card") == "5fe7081a-dddd-569e-ad91-bc7af9f1b729"
    assert message_id(SAGA_ID, "authorize_card", Kind.UNDO, 2) == "2198ee8d-cf1c-5c72-acd8-2b21a481733a"


@given(space=uuids(), name=text())
def test_ids_are_those_of_rfc_9562(space: UUID, name: str) -> None:
    assert operation_id(str(space), name) == str(uuid5(space, name))
