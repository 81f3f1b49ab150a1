"""``docs/how-to/diagnose-an-installation.md`` lists the rules that there are."""

from __future__ import annotations

import re

from sagas_framework.doctor.findings import Rule, Severity
from tests.docs.pages import ROOT, prose

PAGE = ROOT / "docs" / "how-to" / "diagnose-an-installation.md"


def test_the_page_lists_every_rule_in_the_codes_order() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \| .+ \| ([a-z ]+) \|$", prose(PAGE), re.MULTILINE)

    assert [rule for rule, _ in rows] == [rule.value for rule in Rule]
    assert {worst for _, worst in rows} == {severity.value for severity in Severity}
