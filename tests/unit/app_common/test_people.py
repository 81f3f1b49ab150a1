"""People are who their tokens say; what is sealed with one ends with it."""

from __future__ import annotations

import pytest

from app_common.people import People
from app_common.settings import SettingError, operators, people

ANN, BEN = "a" * 16, "b" * 32


def test_a_token_says_whose_it_is() -> None:
    known = People({"ann": ANN, "Ben Doe": BEN})

    assert known.holder(ANN) == "ann"
    assert known.holder(BEN) == "Ben Doe"
    assert known.names == ("ann", "Ben Doe")


@pytest.mark.parametrize("token", ["", "ann", ANN[:-1], ANN + "a", ANN.upper(), "\u00e4", "\ud800"])
def test_what_is_nobodys_token_says_nobody(token: str) -> None:
    assert People({"ann": ANN}).holder(token) is None


def test_a_seal_is_of_one_person_and_of_one_thing() -> None:
    known = People({"ann": ANN, "ben": BEN})
    seal = known.seal("ann", "stock", "login")

    assert seal is not None
    assert known.sealed(seal, "ann", "stock", "login")
    assert not known.sealed(seal, "ben", "stock", "login")
    assert not known.sealed(seal, "ann", "stocklogin")
    assert not known.sealed(seal, "ann", "shipping", "login")
    assert not known.sealed("", "ann", "stock", "login")
    assert not known.sealed("\ud800", "ann", "stock", "login")


def test_a_seal_ends_with_the_token() -> None:
    seal = People({"ann": ANN}).seal("ann", "login")

    assert seal is not None
    assert not People({"ann": BEN}).sealed(seal, "ann", "login")
    assert not People({}).sealed(seal, "ann", "login")


# ---- as the environment says it -------------------------------------------------------------------


@pytest.mark.parametrize("nobody", [{}, {"OPERATOR_TOKENS": ""}, {"OPERATOR_TOKENS": " , "}])
def test_nobody_acts_unless_somebody_is_named(nobody: dict[str, str]) -> None:
    assert not operators(nobody)


def test_names_and_tokens_come_with_commas_between() -> None:
    known = people("APPROVER_TOKENS", {"APPROVER_TOKENS": f"Chris:{ANN}, Ben Doe : {BEN} ,"})

    assert known.names == ("Chris", "Ben Doe")
    assert known.holder(BEN) == "Ben Doe"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("ann", "has an entry that is no name with a token"),
        (f":{ANN}", "has an entry that is no name with a token"),
        ("ann:", "has an entry that is no name with a token"),
        ("ann:short", "has a token of fewer than 16 characters"),
        (f"ann:{ANN},ben:{ANN}", "has a name or a token twice"),
        (f"ann:{ANN},ann:{BEN}", "has a name or a token twice"),
        (f"ann:{ANN}\u00e4", "has signs that no name or token can have"),
        (f"a\x00nn:{ANN}", "has signs that no name or token can have"),
    ],
)
def test_tokens_that_cannot_be_used_are_told_without_showing_them(value: str, told: str) -> None:
    with pytest.raises(SettingError, match=f"OPERATOR_TOKENS {told}") as caught:
        operators({"OPERATOR_TOKENS": value})

    assert ANN not in str(caught.value)
    assert "openssl rand" in str(caught.value)
