"""Says what is wrong with sagas before they run, by walking every path of theirs.

``saga check`` prints it. In a test of your own::

    from sagas_framework.check import check

    def test_the_declaration_is_sound():
        assert check(CreateOrderSaga) == []
"""

from sagas_framework.check.checking import check
from sagas_framework.check.findings import Finding, Severity

__all__ = ["Finding", "Severity", "check"]
