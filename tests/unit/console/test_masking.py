"""What is secret, by name and by type."""

from __future__ import annotations

import json

import pytest
from pydantic import BaseModel, Field, SecretBytes, SecretStr

from sagas_framework.console.masking import Masking

mask = Masking()


class Card(BaseModel):
    owner: str
    number: SecretStr
    seal: SecretBytes | None = None


class Wallet(BaseModel):
    main: Card
    spare: Card | None = None
    others: list[Card] = []
    by_name: dict[str, Card] = {}
    pins: dict[str, SecretStr] = {}
    nested: list[list[Card]] = []
    renamed: SecretStr = Field(default=SecretStr(""), alias="theName")


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "passwordHash",
        "client_secret",
        "accessToken",
        "token",
        "cvv",
        "cvv2",
        "card_pan",
        "cardPAN",
        "PANNumber",
        "PAN",
    ],
)
def test_a_telling_name_hides_its_value(name: str) -> None:
    assert mask({name: "x"}) == {name: "***"}


@pytest.mark.parametrize("name", ["company", "expand", "panel", "pass", "order_id", "spanish", ""])
def test_other_names_do_not(name: str) -> None:
    assert mask({name: "x"}) == {name: "x"}


def test_what_is_inside_a_secret_is_hidden_as_a_whole_and_what_is_missing_stays_so() -> None:
    assert mask({"token": {"a": [1, 2]}, "secret": None, "cvv": 123}) == {
        "token": "***",
        "secret": None,
        "cvv": "***",
    }


def test_secrets_are_found_at_any_depth() -> None:
    value = {"cards": [{"owner": "Ann", "pan": "4111"}], "name": "x"}

    assert mask(value) == {"cards": [{"owner": "Ann", "pan": "***"}], "name": "x"}


def test_what_is_nested_too_deeply_is_left_out() -> None:
    deep: object = "inside"
    for _ in range(5000):
        deep = [deep]

    shown = json.dumps(mask({"reply": deep, "flat": []}), ensure_ascii=False)

    assert shown == '{"reply": ' + "[" * 99 + '"…"' + "]" * 99 + ', "flat": []}'


def test_a_secret_type_hides_its_value_whatever_its_name() -> None:
    card = {"owner": "Ann", "number": "4111", "seal": "s"}
    hidden = {"owner": "Ann", "number": "***", "seal": "***"}

    shown = mask(
        {
            "main": card,
            "spare": card,
            "others": [card, {**card, "seal": None}],
            "by_name": {"x": card},
            "nested": [[card]],
            "theName": "y",
        },
        Wallet,
    )

    assert shown == {
        "main": hidden,
        "spare": hidden,
        "others": [hidden, {**hidden, "seal": None}],
        "by_name": {"x": hidden},
        "nested": [[hidden]],
        "theName": "***",
    }


def test_a_whole_mapping_of_secrets_is_hidden() -> None:
    assert mask({"pins": {"door": "0815"}}, Wallet) == {"pins": "***"}


def test_what_does_not_fit_its_model_is_shown_as_far_as_it_is_known() -> None:
    assert mask({"main": 7, "others": {"number": "x"}, "new": 1}, Wallet) == {
        "main": 7,
        "others": {"number": "***"},
        "new": 1,
    }


def test_other_names_can_be_given() -> None:
    own = Masking(["iban", "address"])

    assert own({"iban": 1, "home_address": 2, "password": 3, "Iban2": 4}) == {
        "iban": "***",
        "home_address": "***",
        "password": 3,
        "Iban2": "***",
    }
