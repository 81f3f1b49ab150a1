"""Spans of time that must go together: leases and limits (rule 8), retention (rule 10). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sagas_framework.core.events import Policy
from sagas_framework.core.why import in_words
from sagas_framework.doctor.findings import Finding, Rule, Severity
from sagas_framework.doctor.installation import Installation, listed
from sagas_framework.participant import CLOCK_SKEW, Participant
from sagas_framework.sagas import Sagas

RABBITMQ_CONSUMER_TIMEOUT: Final = timedelta(minutes=30)
"""RabbitMQ's own default; what a broker is really set to cannot be asked over AMQP."""
_ASK: Final = "rabbitmqctl eval 'application:get_env(rabbit, consumer_timeout).'"


def time_rules(installation: Installation) -> Iterator[Finding]:
    """Of the participant's limits and lease, and of what both sides believe about the inbox."""
    if installation.participant is not None:
        yield from _lease(installation, installation.participant)
        yield from _participants_retention(installation.participant)
    if installation.sagas is not None:
        yield from _policy(installation)
        yield from _orchestrators_timeouts(installation)


# ---- rule 8 -----------------------------------------------------------------------------------------


def hard_limits(installation: Installation) -> dict[str, timedelta | None]:
    """After what time the pool kills each task of the participant, by name; None for never."""
    assert installation.participant is not None
    assert installation.app is not None
    if installation.pool == "solo":
        return dict.fromkeys(installation.participant.tasks)
    pools = installation.started.time_limit if installation.started else installation.conf.task_time_limit
    limits: dict[str, timedelta | None] = {}
    for name in installation.participant.tasks:
        seconds = installation.app.tasks[name].time_limit or pools
        limits[name] = timedelta(seconds=seconds) if seconds else None
    return limits


def _lease(installation: Installation, participant: Participant) -> Iterator[Finding]:
    limits, outside = hard_limits(installation), sorted(participant.outside_tasks)
    lease = in_words(participant.lease)
    if installation.pool == "solo":
        if outside:
            yield Finding(
                Rule.LEASE,
                Severity.UNKNOWN,
                f"The solo pool kills no handler, and {listed(outside)} work outside their transaction.",
                f"One that works longer than its lease of {lease} is begun a second time beside itself.",
                "timeouts in those handlers",
                f"each shorter than {lease} altogether, or take the prefork pool",
            )
    else:
        beyond = [name for name in outside if (limit := limits[name]) is None or limit >= participant.lease]
        if beyond:
            yield Finding(
                Rule.LEASE,
                Severity.LOSES,
                f"Nothing kills {listed(beyond)} before the lease of {lease} is over.",
                "Another worker then begins the same operation beside it, so it can be done twice.",
                "task_time_limit",
                f"less than the lease by the clocks' difference: {in_words(_safe(participant))} or less",
            )
        close = [
            limit
            for name in outside
            if (limit := limits[name]) is not None
            and participant.lease - CLOCK_SKEW < limit < participant.lease
        ]
        if close:
            yield Finding(
                Rule.LEASE,
                Severity.NOTE,
                f"Outside handlers are killed {in_words(participant.lease - max(close))} before their lease "
                "ends.",
                f"That is all by which two workers' clocks may differ here, not {in_words(CLOCK_SKEW)}.",
                "Participant(lease=...) or task_time_limit",
                "a longer lease, or a shorter limit",
            )
    if installation.on_amqp:
        yield from _consumer_timeout(installation, limits)


def _safe(participant: Participant) -> timedelta:
    return max(participant.lease - CLOCK_SKEW, participant.lease / 2)


# ---- the broker's patience --------------------------------------------------------------------------


def _consumer_timeout(installation: Installation, limits: dict[str, timedelta | None]) -> Iterator[Finding]:
    known = [limit for limit in limits.values() if limit is not None]
    if len(known) < len(limits):
        longest, told = None, "as long as its handler works"
    else:
        # What waits behind others in its process is not acknowledged all that while.
        longest = max(known, default=timedelta(0)) * max(installation.prefetch, 1)
        told = f"for {in_words(longest)}"
    if longest is not None and longest > RABBITMQ_CONSUMER_TIMEOUT:
        yield Finding(
            Rule.CONSUMER_TIMEOUT,
            Severity.NOTE if installation.prefetch > 1 else Severity.WRONG,
            f"A worker may hold a command {told}, and RabbitMQ waits "
            f"{in_words(RABBITMQ_CONSUMER_TIMEOUT)} unless it is set otherwise ({_ASK}).",
            "Past that it closes the channel, the worker ends, and the command is delivered again.",
            "consumer_timeout (RabbitMQ), or task_time_limit",
            f"more than {in_words(longest)}, in milliseconds, in rabbitmq.conf; or a shorter limit",
        )
        return
    yield Finding(
        Rule.CONSUMER_TIMEOUT,
        Severity.UNKNOWN,
        f"A worker may hold a command {told}; RabbitMQ's consumer_timeout cannot be asked over AMQP.",
        "Past it the channel is closed, the worker ends, and the command is delivered again.",
        "consumer_timeout (RabbitMQ)",
        f"more than the longest handler; ask with {_ASK}",
    )


def _orchestrators_timeouts(installation: Installation) -> Iterator[Finding]:
    steps = installation.command_steps.items()
    longer = {name: step.timeout for name, step in steps if step.timeout > RABBITMQ_CONSUMER_TIMEOUT}
    if longer and installation.on_amqp:
        name = max(longer, key=lambda name: longer[name])
        yield Finding(
            Rule.CONSUMER_TIMEOUT,
            Severity.UNKNOWN,
            f"{name} may take {in_words(longer[name])}; RabbitMQ's consumer_timeout cannot be asked over "
            f"AMQP and is {in_words(RABBITMQ_CONSUMER_TIMEOUT)} unless it is set otherwise.",
            "A handler that works longer than that loses its channel, and its command is delivered again.",
            "consumer_timeout (RabbitMQ)",
            f"more than the longest handler; ask with {_ASK}",
        )


# ---- rule 10 ----------------------------------------------------------------------------------------


def kept_for(participant: Participant) -> timedelta:
    """How long rows are really kept: an inbox elsewhere may have a retention of its own."""
    own = getattr(participant.inbox, "retention", None)
    return min(participant.retention, own) if isinstance(own, timedelta) else participant.retention


def _participants_retention(participant: Participant) -> Iterator[Finding]:
    kept, believed = kept_for(participant), Policy().inbox_retention
    if kept < participant.retention:
        yield Finding(
            Rule.RETENTION,
            Severity.WRONG,
            f"The inbox keeps rows for {in_words(kept)}, and the participant says "
            f"{in_words(participant.retention)}.",
            "Whoever goes by the longer one sends a command again that the inbox has forgotten.",
            f"{type(participant.inbox).__name__}(retention=...)",
            "the participant's own",
        )
    if kept < believed:
        yield Finding(
            Rule.RETENTION,
            Severity.NOTE,
            f"Inbox rows are kept for {in_words(kept)}; orchestrators believe {in_words(believed)} "
            "unless their Policy says otherwise.",
            "A command that is sent again after its row has gone is executed again.",
            "Participant(retention=...), or Policy(inbox_retention=...) of every orchestrator",
            f"the same in both: at least {in_words(believed)}, or at most {in_words(kept)}",
        )


def _policy(installation: Installation) -> Iterator[Finding]:
    assert installation.sagas is not None
    policy = installation.sagas.policy
    needed = policy.message_lifetime + policy.clock_skew
    if policy.sendable_for <= timedelta(0):
        yield Finding(
            Rule.RETENTION,
            Severity.LOSES,
            f"Policy(inbox_retention) is {in_words(policy.inbox_retention)}, and a message lives "
            f"{in_words(policy.message_lifetime)}.",
            "Nothing may ever be sent, so every saga parks at its first command.",
            "Policy(inbox_retention=...)",
            f"more than {in_words(needed)}, the message lifetime and the clock skew",
        )
    else:
        steps = installation.command_steps.items()
        timeouts = {name: step.timeout for name, step in steps if step.timeout > policy.sendable_for}
        if timeouts:
            name = max(timeouts, key=lambda name: timeouts[name])
            yield Finding(
                Rule.RETENTION,
                Severity.WRONG,
                f"{name} may take {in_words(timeouts[name])}, and a step is sent for only "
                f"{in_words(policy.sendable_for)}.",
                "It parks before its time is over.",
                "Policy(inbox_retention=...), and every participant's retention",
                f"more than {in_words(timeouts[name] + needed)}",
            )
    yield from _kept_shortly(installation.sagas, needed)
    own = [queue.name for queue in installation.sagas.definitions.queues]
    beside = installation.beside
    if beside is not None and beside.service.queue.name in own:
        if kept_for(beside) < policy.inbox_retention:
            yield Finding(
                Rule.RETENTION,
                Severity.LOSES,
                f"{beside.service.name} keeps inbox rows for {in_words(kept_for(beside))}, and these sagas "
                f"believe {in_words(policy.inbox_retention)}.",
                "A command that is sent again after its row has gone is executed again.",
                "Participant(retention=...)",
                f"at least {in_words(policy.inbox_retention)}",
            )
        own.remove(beside.service.queue.name)
    if own:
        yield Finding(
            Rule.RETENTION,
            Severity.UNKNOWN,
            f"How long the services behind {listed(own)} keep inbox rows cannot be seen from here.",
            "A command that is sent again after its row has gone is executed again.",
            "Participant(retention=...) there",
            f"at least {in_words(policy.inbox_retention)}, this orchestrator's inbox_retention",
        )


def _kept_shortly(sagas: Sagas, needed: timedelta) -> Iterator[Finding]:
    """Of sagas that go while messages of theirs may still be under way."""
    spans = {
        name or "whatever declares nothing else": kept.keep
        for name, kept in sagas.retentions.items()
        if kept.keep is not None and kept.keep < needed
    }
    if spans:
        yield Finding(
            Rule.RETENTION,
            Severity.NOTE,
            f"Ended sagas of {listed(sorted(spans))} stay for {in_words(min(spans.values()))} at least, and "
            f"a message lives {in_words(sagas.policy.message_lifetime)}.",
            "A reply that comes twice, the second time after its saga has gone, is quarantined; a business "
            "key that is used again starts another saga.",
            "Retention(keep=...) of the saga, or Sagas(retention=...)",
            f"at least {in_words(needed)}, or a shorter Policy(message_lifetime)",
        )
