"""Who may act on the pages, as the environment says it."""

from __future__ import annotations

import pytest

from app_common.settings import PageSettings, SettingError, page_settings


@pytest.mark.parametrize("none", [{}, {"ORDER_SERVICE_OPERATORS": ""}, {"ORDER_SERVICE_OPERATORS": " , "}])
def test_nobody_acts_unless_somebody_is_named(none: dict[str, str]) -> None:
    assert page_settings(none) == PageSettings((), None)


def test_names_come_with_commas_between() -> None:
    environment = {"ORDER_SERVICE_OPERATORS": "ann, Ben Doe,", "ORDER_SERVICE_SECRET_KEY": "k"}

    assert page_settings(environment) == PageSettings(("ann", "Ben Doe"), "k")


def test_operators_without_a_key_are_told_what_to_write() -> None:
    with pytest.raises(SettingError, match=r"ORDER_SERVICE_SECRET_KEY is missing.*openssl rand -hex 32"):
        page_settings({"ORDER_SERVICE_OPERATORS": "ann"})
