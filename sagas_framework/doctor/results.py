"""Redis: as the place of an inbox, where it must forget nothing, and as the place of results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from celery.backends.base import DisabledBackend

from sagas_framework.doctor.databases import worker_rules
from sagas_framework.doctor.findings import Area, Examination, Finding, Rule, Severity
from sagas_framework.doctor.installation import ORCHESTRATOR, Installation
from sagas_framework.storage.engine import masked
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.redis_inbox import RedisInbox

_SINCE: Final = (6, 2)
_PATIENCE: Final = 3  # seconds


def examine_results(installation: Installation) -> list[Examination]:
    """See whether the inbox outside a database is safe where it is, and outcomes can be stored."""
    found = []
    if installation.participant is not None and installation.database is None:
        found.append(_inbox(installation))
    # At a start it is not asked: the rows are the truth, and it may be away.
    if installation.kind == ORCHESTRATOR and installation.app is not None and installation.started is None:
        found.append(_result_backend(installation, installation.app.backend))
    return found


# ---- the inbox --------------------------------------------------------------------------------------


def _inbox(installation: Installation) -> Examination:
    assert installation.participant is not None
    inbox = installation.participant.inbox
    examination = Examination(Area.RESULTS, f"the inbox, a {type(inbox).__name__}")
    if not isinstance(inbox, RedisInbox):
        examination.add(
            [
                Finding(
                    Rule.INBOX,
                    Severity.UNKNOWN,
                    f"The inbox is a {type(inbox).__name__}, which is neither an SQL database nor Redis.",
                    "Whether it keeps its rows is not known.",
                    "Participant(inbox=...)",
                    "database=... or RedisInbox(...)",
                )
            ]
        )
        return examination
    from redis import RedisError

    examination.subject = f"the inbox in {inbox}"
    try:
        facts = redis_facts(inbox.server)
        beats = inbox.read_beats()
    except (RedisError, StoreUnavailable) as error:
        examination.add(
            [
                Finding(
                    Rule.INBOX,
                    Severity.WRONG,
                    f"Redis could not be asked: {str(error).partition(chr(10))[0]}",
                    "Nothing is known of it; commands wait until it is back.",
                    "RedisInbox(url)",
                    "an address at which it answers; then ask again",
                )
            ]
        )
        return examination
    examination.in_order.append(f"Redis {facts.get('redis_version', '')} is reached".replace("  ", " "))
    examination.look(inbox_rules(facts), "it keeps every row until its retention is over")
    examination.look(
        worker_rules(installation, beats),
        "no worker's clock is ahead of ours, and no other service's worker is here",
    )
    return examination


def redis_facts(client: Any) -> dict[str, str]:
    """What a Redis says of itself: its INFO, and of its configuration what it lets us see.

    Raises:
        RedisError: it does not answer, or not to us.
    """
    from redis import ResponseError

    facts = {name: str(value) for name, value in client.info().items()}
    for pattern in ("maxmemory*", "append*", "save"):
        try:
            facts |= {name: str(value) for name, value in client.config_get(pattern).items()}
        except ResponseError:
            break  # hosted servers let nobody ask
    return facts


def inbox_rules(facts: Mapping[str, str]) -> Iterator[Finding]:
    """Of a Redis that may forget rows of an inbox.

    Args:
        facts: as of `redis_facts`; what is missing was not told.
    """
    yield from _fit(facts)
    yield from _eviction(facts)
    yield from _persistence(facts)


def _fit(facts: Mapping[str, str]) -> Iterator[Finding]:
    if facts.get("cluster_enabled") == "1":
        yield Finding(
            Rule.INBOX,
            Severity.LOSES,
            "This is a Redis Cluster.",
            "A row and its place in the order of ages lie on different servers, so rows cannot be written.",
            "RedisInbox(url)",
            "one server and its replicas",
        )
    if facts.get("role") == "slave":
        yield Finding(
            Rule.READ_ONLY,
            Severity.WRONG,
            "This Redis is a replica.",
            "It cannot be written to: commands wait until it can.",
            "RedisInbox(url)",
            "the address of the primary",
        )
    version = tuple(int(part) for part in facts.get("redis_version", "").split(".")[:2] if part.isdecimal())
    if version and version < _SINCE:
        yield Finding(
            Rule.INBOX,
            Severity.WRONG,
            f"This is Redis {facts['redis_version']}.",
            "It cannot find old rows by their age, so a worker's housekeeping fails.",
            "RedisInbox(url)",
            "Redis 6.2 or newer",
        )


def _eviction(facts: Mapping[str, str]) -> Iterator[Finding]:
    policy, limit = facts.get("maxmemory_policy") or facts.get("maxmemory-policy"), facts.get("maxmemory")
    if policy is None:
        yield Finding(
            Rule.EVICTION,
            Severity.UNKNOWN,
            "This Redis does not tell its maxmemory-policy.",
            "One that evicts forgets operations, which are then executed again.",
            "maxmemory-policy (Redis)",
            "noeviction",
        )
    elif policy != "noeviction":
        evicts = limit != "0"
        yield Finding(
            Rule.EVICTION,
            Severity.LOSES if evicts else Severity.NOTE,
            f"maxmemory-policy is {policy}"
            + (f" with maxmemory {limit}." if evicts else ", which counts once maxmemory is set."),
            "A row that is evicted is forgotten: its command is executed again, even one that was undone "
            "before it came.",
            "maxmemory-policy (Redis)",
            "noeviction",
        )


def _persistence(facts: Mapping[str, str]) -> Iterator[Finding]:
    log = facts.get("aof_enabled") == "1" or facts.get("appendonly") == "yes"
    if log:
        if facts.get("appendfsync", "always") != "always":
            yield Finding(
                Rule.PERSISTENCE,
                Severity.NOTE,
                f"appendfsync is {facts['appendfsync']}.",
                "A crash forgets what was handled in the last second, which is then executed again.",
                "appendfsync (Redis)",
                "always",
            )
        return
    if "aof_enabled" not in facts and "appendonly" not in facts:
        yield Finding(
            Rule.PERSISTENCE,
            Severity.UNKNOWN,
            "This Redis does not tell whether it keeps a log.",
            "Without one, a restart forgets operations, which are then executed again.",
            "appendonly (Redis)",
            "yes",
        )
        return
    snapshots = facts.get("save", "?") != ""
    yield Finding(
        Rule.PERSISTENCE,
        Severity.WRONG,
        "appendonly is no"
        + (", so only snapshots are kept." if snapshots else ", and no snapshots are saved either."),
        "A restart forgets "
        + ("what was handled since the last snapshot" if snapshots else "every operation")
        + ": it is executed again if its command comes again.",
        "appendonly and appendfsync (Redis)",
        "yes, and always",
    )


# ---- outcomes as Celery results ---------------------------------------------------------------------


def _result_backend(installation: Installation, backend: Any) -> Examination:
    url = str(installation.conf.result_backend or "")
    examination = Examination(Area.RESULTS, masked(url) if url else "no result backend")
    kind = type(backend).__name__
    if isinstance(backend, DisabledBackend):
        examination.in_order.append("outcomes are in the rows alone")
    elif kind == "RPCBackend":
        examination.add(
            [_cannot(kind, "It keeps a result only for whoever sent a task, and nobody sent this one.")]
        )
    elif url.startswith(("cache+memory", "cache+locmem")):
        examination.add([_cannot(url, "It keeps results in this process, where nobody else reads them.")])
    elif kind == "RedisBackend" and url.startswith(("redis://", "rediss://")):
        examination.look(_answers(url), "it answers, and takes outcomes")
    else:
        examination.add(
            [
                Finding(
                    Rule.RESULT_BACKEND,
                    Severity.UNKNOWN,
                    f"The result backend is a {kind}, which was not asked.",
                    "Whether outcomes can be stored there is not known; the rows have them in any case.",
                    "orchestrator_app(result_backend=...)",
                    "redis://host:6379/0, or none",
                )
            ]
        )
    return examination


def _cannot(what: str, why: str) -> Finding:
    return Finding(
        Rule.RESULT_BACKEND,
        Severity.WRONG,
        f"The result backend is {what}.",
        f"{why} AsyncResult(saga_id).get() waits for ever.",
        "orchestrator_app(result_backend=...)",
        "redis://host:6379/0, or none",
    )


def _answers(url: str) -> Iterator[Finding]:
    import redis

    try:
        with redis.Redis.from_url(url, socket_connect_timeout=_PATIENCE, socket_timeout=_PATIENCE) as client:
            replica = client.info("replication").get("role") == "slave"
    except (redis.RedisError, ValueError, TypeError) as error:
        yield Finding(
            Rule.RESULT_BACKEND,
            Severity.WRONG,
            f"The result backend does not answer: {str(error).partition(chr(10))[0]}",
            "Whoever waits for AsyncResult(saga_id).get() waits; the rows have the outcomes in any case.",
            "orchestrator_app(result_backend=...)",
            "an address at which it answers, or none",
        )
        return
    if replica:
        yield _cannot("a replica", "Nothing can be written to it.")
