"""The orchestrator of `benchmarks.approvals`, as a Celery worker on the solo pool."""

from __future__ import annotations

import os

from benchmarks.approvals import sagas_of
from sagas_framework import orchestrator_app

app = orchestrator_app(sagas_of(os.environ["BENCHMARK_DATABASE"]), broker=os.environ["BENCHMARK_BROKER"])
