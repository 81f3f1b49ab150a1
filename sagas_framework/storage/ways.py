"""Fewer ways to PostgreSQL and back: BEGIN goes with a transaction's first statement, COMMIT with its last.

For each way both processes are woken, which takes longer than most statements of a lone saga. The values are
written into the statements, so that nothing is left behind in the session: whatever stands between us and
the server may give the next transaction to another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

if TYPE_CHECKING:
    from psycopg import Connection as Psycopg
    from psycopg.pq.abc import PGresult

Value = str | int | None
"""What is written into a statement; anything else as the text that a CAST reads."""

_BEGIN: Final = "BEGIN"
_COMMIT: Final = "COMMIT"


def begin_with(connection: Connection, statement: str, **values: Value) -> tuple[str | None, ...]:
    """Begin a transaction with a statement that gives one row of texts; that row.

    Args:
        connection: in a transaction. If something was sent in it, by a listener of the service, it has begun.
        statement: with ``{name}`` where a value belongs.

    Raises:
        DBAPIError: what the server or the driver said.
    """
    psycopg = _psycopg(connection)
    if psycopg is None:
        return tuple(connection.execute(_bound(statement, values), values).one())
    result = _sent(connection, psycopg, statement, _begin(psycopg) + _filled(psycopg, statement, values))
    found = [result.get_value(0, column) for column in range(result.nfields)]
    return tuple(None if value is None else value.decode(_encoding(psycopg)) for value in found)


def commit_with(connection: Connection, statement: str, **values: Value) -> None:
    """End a transaction with a statement, of which nobody asks what it gives.

    Raises:
        DBAPIError: what the server or the driver said; nothing is committed.
    """
    psycopg = _psycopg(connection)
    if psycopg is None:
        connection.execute(_bound(statement, values), values)  # committed when its block is left
    else:
        _sent(connection, psycopg, statement, f"{_filled(psycopg, statement, values)};{_COMMIT}")


def _psycopg(connection: Connection) -> Psycopg[Any] | None:
    """The driver's connection, if it is psycopg's, which also lets us send what it does not understand."""
    if connection.dialect.driver != "psycopg":
        return None
    driver: Any = connection.connection.driver_connection
    return None if driver.autocommit else driver


def _begin(psycopg: Psycopg[Any]) -> str:
    """As psycopg would begin by itself; like it, nothing in a transaction."""
    from psycopg.pq import TransactionStatus

    if psycopg.pgconn.transaction_status != TransactionStatus.IDLE:
        return ""
    words = [_BEGIN]
    if psycopg.isolation_level is not None:
        words.append(f"ISOLATION LEVEL {psycopg.isolation_level.name.replace('_', ' ')}")
    if psycopg.read_only is not None:
        words.append("READ ONLY" if psycopg.read_only else "READ WRITE")
    if psycopg.deferrable is not None:
        words.append("DEFERRABLE" if psycopg.deferrable else "NOT DEFERRABLE")
    return " ".join(words) + ";"


def _bound(statement: str, values: dict[str, Value]) -> Any:
    return text(statement.format(**{name: f":{name}" for name in values}))


def _filled(psycopg: Psycopg[Any], statement: str, values: dict[str, Value]) -> str:
    from psycopg import DataError
    from psycopg.pq import Escaping

    escaping, encoding = Escaping(psycopg.pgconn), _encoding(psycopg)

    def literal(value: Value) -> str:
        if isinstance(value, str):
            if "\0" in value:  # here the statement would end
                raise _error(statement, DataError("PostgreSQL keeps no text with a NUL in it"))
            return bytes(escaping.escape_literal(value.encode(encoding))).decode(encoding)
        return "NULL" if value is None else str(value)

    return statement.format(**{name: literal(value) for name, value in values.items()})


def _encoding(psycopg: Psycopg[Any]) -> str:
    encoding = psycopg.info.encoding
    return "utf-8" if encoding == "ascii" else encoding  # SQL_ASCII, which takes any bytes


def _sent(connection: Connection, psycopg: Psycopg[Any], statement: str, words: str) -> PGresult:
    """Send it; what its last statement but COMMIT gave.

    Raises:
        DBAPIError: of the statement as it was before its values were written into it, or of none if it was
            COMMIT that failed.
    """
    from psycopg import Error
    from psycopg.errors import error_from_result
    from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

    try:
        result = psycopg.pgconn.exec_(words.encode(_encoding(psycopg)))
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise error_from_result(result, _encoding(psycopg))
    except Error as error:
        lost = psycopg.pgconn.status != ConnStatus.OK
        if lost:
            connection.invalidate(error)
        over = psycopg.pgconn.transaction_status == TransactionStatus.IDLE
        raise _error(None if over else statement, error, lost=lost) from error
    return result


def _error(statement: str | None, error: Exception, *, lost: bool = False) -> BaseException:
    """As SQLAlchemy would raise it."""
    from psycopg import Error

    return DBAPIError.instance(
        statement, None, error, Error, hide_parameters=True, connection_invalidated=lost
    )
