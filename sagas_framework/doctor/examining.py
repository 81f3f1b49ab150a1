"""The examination as a whole: every part of one side of a service, one after the other."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable

from sagas_framework.doctor.broker import examine_broker
from sagas_framework.doctor.databases import examine_database
from sagas_framework.doctor.findings import (
    ACCEPT_VARIABLE,
    Area,
    Examination,
    Finding,
    Report,
    Rule,
    Severity,
    accepted_rules,
)
from sagas_framework.doctor.installation import Installation
from sagas_framework.doctor.results import examine_results
from sagas_framework.doctor.settings import examine_settings
from sagas_framework.errors import ConfigurationError

logger = logging.getLogger(__name__)


def examine(installation: Installation) -> Report:
    """Look at broker, database, results and settings. Nothing is changed anywhere.

    A server that does not answer is a finding; each is given a few seconds.
    """
    report = Report(installation.service, installation.kind)
    if installation.app is not None:
        report.examinations += _guarded(Area.BROKER, lambda: [examine_broker(installation)])
    report.examinations += _guarded(Area.DATABASE, lambda: [examine_database(installation)])
    report.examinations += _guarded(Area.RESULTS, lambda: examine_results(installation))
    report.examinations += _guarded(Area.SETTINGS, lambda: [examine_settings(installation)])
    settings = report.examinations[-1]
    names = accepted_rules(os.environ.get(ACCEPT_VARIABLE), lambda finding: settings.findings.append(finding))
    report.accept(names)
    return report


def refuse_unsound(installation: Installation) -> None:
    """Examine what a worker starts with; log what is wrong.

    Raises:
        ConfigurationError: an order could be lost; the message has every reason, and what to write.
    """
    report = examine(installation)
    for finding in report.of(Severity.WRONG):
        logger.warning("%s", finding.told)
    if losing := report.of(Severity.LOSES):
        raise ConfigurationError(
            f"{report.service} does not start, because an order could be lost. "
            + " ".join(finding.told + "." * (not finding.told.endswith(".")) for finding in losing)
        )


def _guarded(area: Area, look: Callable[[], Iterable[Examination | None]]) -> list[Examination]:
    """What was found, or that the examination itself failed: that must not keep a worker from starting."""
    try:
        return [examination for examination in look() if examination is not None]
    except Exception as error:
        logger.debug("examining the %s failed", area.value, exc_info=True)
        return [
            Examination(
                area,
                area.value,
                findings=[
                    Finding(
                        Rule.EXAMINATION,
                        Severity.UNKNOWN,
                        f"The {area.value} could not be examined: {type(error).__name__}.",
                        "Nothing is known of it.",
                        "the log, at level DEBUG",
                        "report it with what the log says",
                    )
                ],
            )
        ]
