"""Whether a change of contracts breaks somebody who has not been redeployed. Extra: ``contracts``.

`compare` judges AsyncAPI documents of the last release and of the next one; ``saga contracts diff`` prints
what it finds.
"""

from __future__ import annotations

from sagas_framework.contracts.changes import Change, Compared, Effect, Report
from sagas_framework.contracts.comparing import compare
from sagas_framework.contracts.documents import Document, document, read
from sagas_framework.contracts.errors import CannotCompare
from sagas_framework.contracts.structure import Tools, tools

__all__ = [
    "CannotCompare",
    "Change",
    "Compared",
    "Document",
    "Effect",
    "Report",
    "Tools",
    "compare",
    "document",
    "read",
    "tools",
]
