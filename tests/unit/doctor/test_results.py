"""What a Redis says of itself, and the result backend of the outcomes."""

from __future__ import annotations

from typing import Any

import pytest

from sagas_framework.doctor.findings import Rule, Severity
from sagas_framework.doctor.results import examine_results, inbox_rules, redis_facts
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from sagas_framework.storage.redis_inbox import RedisInbox
from tests.unit.doctor.installations import orchestrator, participant, told

LOSES, WRONG, NOTE, UNKNOWN = Severity

SOUND = {
    "redis_version": "7.4.1",
    "role": "master",
    "cluster_enabled": "0",
    "maxmemory": "0",
    "maxmemory_policy": "noeviction",
    "aof_enabled": "1",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
}


def without(*names: str) -> dict[str, str]:
    return {name: value for name, value in SOUND.items() if name not in names}


def test_a_redis_as_an_inbox_needs_it_is_in_order() -> None:
    assert list(inbox_rules(SOUND)) == []


@pytest.mark.parametrize(
    ("facts", "finding"),
    [
        (SOUND | {"maxmemory": "64000000", "maxmemory_policy": "volatile-ttl"}, (Rule.EVICTION, LOSES)),
        (SOUND | {"maxmemory": "64000000", "maxmemory_policy": "allkeys-lru"}, (Rule.EVICTION, LOSES)),
        (SOUND | {"maxmemory_policy": "allkeys-lru"}, (Rule.EVICTION, NOTE)),
        (without("maxmemory_policy"), (Rule.EVICTION, UNKNOWN)),
        (SOUND | {"aof_enabled": "0", "appendonly": "no"}, (Rule.PERSISTENCE, WRONG)),
        (SOUND | {"aof_enabled": "0", "appendonly": "no", "save": "3600 1"}, (Rule.PERSISTENCE, WRONG)),
        (SOUND | {"appendfsync": "everysec"}, (Rule.PERSISTENCE, NOTE)),
        (without("aof_enabled", "appendonly"), (Rule.PERSISTENCE, UNKNOWN)),
        (SOUND | {"cluster_enabled": "1"}, (Rule.INBOX, LOSES)),
        (SOUND | {"role": "slave"}, (Rule.READ_ONLY, WRONG)),
        (SOUND | {"redis_version": "6.0.16"}, (Rule.INBOX, WRONG)),
    ],
)
def test_a_redis_that_may_forget_is_found(facts: dict[str, str], finding: tuple[Rule, Severity]) -> None:
    assert told(inbox_rules(facts)) == [finding]


@pytest.mark.parametrize(("save", "words"), [("", "no snapshots"), ("3600 1", "only snapshots")])
def test_what_a_restart_forgets_is_told(save: str, words: str) -> None:
    (finding,) = inbox_rules(SOUND | {"aof_enabled": "0", "appendonly": "no", "save": save})

    assert words in finding.what


class Hosted:
    """A Redis that lets nobody ask for its configuration."""

    def info(self) -> dict[str, Any]:
        return {"redis_version": "7.2.0", "maxmemory": 5, "maxmemory_policy": "allkeys-lru", "aof_enabled": 1}

    def config_get(self, pattern: str) -> dict[str, str]:
        from redis import ResponseError

        raise ResponseError("unknown command 'CONFIG'")


def test_of_a_server_that_hides_its_configuration_the_rest_is_judged() -> None:
    assert told(inbox_rules(redis_facts(Hosted()))) == [(Rule.EVICTION, LOSES)]


def test_an_inbox_that_is_away_is_wrong_and_not_called_in_order() -> None:
    (examination,) = examine_results(participant(inbox=RedisInbox("redis://:secret@127.0.0.1:1/0")))

    assert told(examination.findings) == [(Rule.INBOX, WRONG)]
    assert examination.in_order == []
    assert "secret" not in examination.subject + examination.findings[0].told


def test_an_inbox_of_a_kind_that_is_not_known_is_not_called_in_order() -> None:
    (examination,) = examine_results(participant(inbox=MemoryInbox(MemoryDatabase())))

    assert told(examination.findings) == [(Rule.INBOX, UNKNOWN)]
    assert examination.in_order == []


# ---- the result backend -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backend", "severities"),
    [
        (None, []),
        ("rpc://", [WRONG]),
        ("cache+memory://", [WRONG]),
        ("redis://:secret@127.0.0.1:1/0", [WRONG]),
        ("db+sqlite:///results.sqlite3", [UNKNOWN]),
    ],
)
def test_a_result_backend_that_gives_nobody_an_outcome_is_found(
    backend: str | None, severities: list[Severity]
) -> None:
    (examination,) = examine_results(orchestrator(result_backend=backend))

    assert told(examination.findings) == [(Rule.RESULT_BACKEND, severity) for severity in severities]
    assert bool(examination.in_order) is (backend is None)
    assert "secret" not in examination.subject


def test_a_participant_on_a_database_has_no_results() -> None:
    assert examine_results(participant()) == []
