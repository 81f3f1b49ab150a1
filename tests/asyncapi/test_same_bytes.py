"""A document is the same from build to build, byte by byte, and the committed copy is of this build."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from app_common.running import SERVICES
from tests.asyncapi.tools import ROOT

COMMITTED = ROOT / "docs" / "contracts"

EVERYTHING = """
import json, sys
from app_common.specifications import specifications
json.dump({one.service: [one.yaml(), one.json()] for one in specifications()}, sys.stdout)
"""

Built = dict[str, list[str]]
"""Of each service, the document as YAML and as JSON."""


def built(*, hash_seed: int, **more: str) -> Built:
    """What a process of its own builds, with settings as they are by default."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", EVERYTHING],
        cwd=ROOT,
        env={**kept, "PYTHONHASHSEED": str(hash_seed), **more},
        capture_output=True,
        check=True,
        timeout=60,
    )
    made: Built = json.loads(done.stdout)
    return made


@pytest.fixture(scope="module")
def by_default() -> Built:
    return built(hash_seed=1)


def test_two_builds_are_alike_byte_by_byte(by_default: Built) -> None:
    assert by_default == built(hash_seed=2)
    assert set(by_default) == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_committed_copy_is_what_is_built_now(by_default: Built, service: str) -> None:
    committed = (COMMITTED / f"{service}.yaml").read_text(encoding="utf-8")

    assert committed == by_default[service][0], "Run: make contracts"


def test_only_services_of_the_platform_are_committed() -> None:
    assert {file.stem for file in COMMITTED.glob("*.yaml")} == set(SERVICES)


def test_of_the_broker_a_document_has_the_place_and_no_credentials(by_default: Built) -> None:
    elsewhere = built(hash_seed=1, CELERY_BROKER="amqp://ann:secret@broker.example:5673/orders")

    for service, texts in elsewhere.items():
        for text, usual in zip(texts, by_default[service], strict=True):
            assert "broker.example:5673" in text
            assert "secret" not in text
            assert "ann:" not in text
            differing = set(text.splitlines()) ^ set(usual.splitlines())
            keys = {line.partition(":")[0].strip(' "') for line in differing}
            assert keys <= {"host", "pathname", "description", "vhost"}
