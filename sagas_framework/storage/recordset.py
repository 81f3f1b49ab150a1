"""Many rows in one parameter: what PostgreSQL reads as a table, and how it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Table, TableValuedAlias, Text, bindparam, cast, column, func


def recordset(table: Table, names: Sequence[str], *, prefix: str = "") -> TableValuedAlias:
    """The parameter ``rows`` as a table of these columns of `table`, in the order of the rows.

    Args:
        prefix: stands before each name.
    """
    columns = [column(prefix + name, table.c[name].type) for name in names]
    rows = cast(bindparam("rows", type_=Text), JSON)
    return func.json_to_recordset(rows).table_valued(*columns, name="given").render_derived(with_types=True)


def as_recordset(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text for the parameter; moments are written as ISO 8601.

    Raises:
        TypeError: a value has no form as JSON.
    """
    written = [
        {name: v.isoformat() if isinstance(v, datetime) else v for name, v in row.items()} for row in rows
    ]
    return json.dumps(written, separators=(",", ":"))
