"""Many rows in one parameter: what PostgreSQL reads as a table, and how it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    ColumnElement,
    Table,
    TableValuedAlias,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
)


def recordset(
    table: Table, names: Sequence[str], *, prefix: str = "", given: str = "rows"
) -> TableValuedAlias:
    """The parameter `given` as a table of these columns of `table`, in the order of the rows.

    Args:
        prefix: stands before each name.
    """
    columns = [column(prefix + name, table.c[name].type) for name in names]
    rows = cast(bindparam(given, type_=Text), JSON)
    return func.json_to_recordset(rows).table_valued(*columns, name="given").render_derived(with_types=True)


def few(text: ColumnElement[str]) -> ColumnElement[bool]:
    """Always true of a text in a set; so that whatever is joined with the set is found by its index.

    PostgreSQL takes any set for 100 rows. For so many it reads a table of some hundred pages whole, and the
    plan of a prepared statement is kept while the table grows, until statistics are gathered. Of an equation
    that it knows nothing about it expects one row in 200 to be true.
    """
    return func.left(text, literal_column("0")) == literal_column("''")


def as_recordset(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as the text for the parameter; moments are written as ISO 8601.

    Raises:
        TypeError: a value has no form as JSON.
    """
    return _ENCODER.encode(rows)


def _moment(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no form as JSON")


_ENCODER: Final = json.JSONEncoder(separators=(",", ":"), default=_moment)  # asked for what it does not know
