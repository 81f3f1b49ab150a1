"""A database whose disk is full for a while: every write is refused with SQLSTATE 53100.

A write is refused at its statement, or at the commit if its statement had found room.
"""

from __future__ import annotations

from typing import Final

import psycopg

_INSTALL: Final = """
CREATE TABLE matrix_disk (full_now boolean);
CREATE SEQUENCE matrix_refusals;  -- counts on through every rollback
CREATE FUNCTION matrix_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM matrix_disk) THEN
        PERFORM nextval('matrix_refusals');
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END IF;
    RETURN NULL;
END $$;
DO $$
DECLARE found text;
BEGIN
    FOR found IN SELECT tablename FROM pg_tables
        WHERE schemaname = 'public' AND tablename NOT IN ('matrix_disk', 'saga_worker', 'saga_queue') LOOP
        EXECUTE format('CREATE TRIGGER matrix_at_once BEFORE INSERT OR UPDATE OR DELETE ON %I '
                       'FOR EACH STATEMENT EXECUTE FUNCTION matrix_refuse()', found);
        EXECUTE format('CREATE CONSTRAINT TRIGGER matrix_at_commit AFTER INSERT OR UPDATE OR DELETE ON %I '
                       'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION matrix_refuse()', found);
    END LOOP;
END $$;
"""
_REMOVE: Final = """
DROP FUNCTION matrix_refuse() CASCADE;  -- with the triggers
DROP SEQUENCE matrix_refusals;
DROP TABLE matrix_disk;
"""


class Disk:
    """The disk of one database, with room. Only notes about workers and queues are always written.

    Args:
        url: address of the database; it has its tables, and nobody is connected.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._run(_INSTALL)

    def close(self) -> None:
        """Leave the database as it was."""
        self._run(_REMOVE)

    def fill(self) -> None:
        """From now on every write is refused, also those of transactions that run."""
        self._run("INSERT INTO matrix_disk VALUES (true)")

    def free(self) -> None:
        """There is room again."""
        self._run("DELETE FROM matrix_disk")

    @property
    def refusals(self) -> int:
        """How many writes were refused so far."""
        with psycopg.connect(self._url) as connection:
            row = connection.execute(
                "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM matrix_refusals"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def _run(self, statements: str) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(statements.encode())
