"""The documents of the order platform's services."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from app_common.running import SERVICES
from app_common.specifications import specification, specifications
from sagas_framework.asyncapi import check_document, check_together, fitting


@pytest.mark.parametrize("service", SERVICES)
def test_each_document_is_sound(service: str) -> None:
    assert specification(service).service == service
    assert check_document(specification(service).document) == []


def test_the_documents_fit_together() -> None:
    documents = [each.document for each in specifications()]

    assert [document["info"]["title"] for document in documents] == [
        "Order service",
        "Consumer service",
        "Restaurant service",
        "Accounting service",
        "Inventory service",
        "Delivery service",
        "Notification service",
    ]
    assert check_together(documents) == []


@pytest.mark.parametrize("service", SERVICES)
def test_each_example_is_its_own_message_and_no_other(service: str) -> None:
    document = specification(service).document

    for key, message in document["components"]["messages"].items():
        for example in message["examples"]:
            assert fitting(document, example["headers"], example["payload"]) == [key]


@pytest.mark.parametrize("service", SERVICES)
def test_run_as_a_module_it_prints_the_same_yaml_each_time(service: str) -> None:
    printed = []
    for seed in ("1", "2"):
        environment = os.environ | {
            "PYTHONHASHSEED": seed,
            "CELERY_BROKER": "amqp://somebody:hidden@broker.example//",
        }
        command = [sys.executable, "-m", f"{service}.asyncapi_specification"]
        ran = subprocess.run(command, env=environment, capture_output=True, check=True, text=True)
        printed.append(ran.stdout)

    assert printed[0] == printed[1]
    assert "hidden" not in printed[0]
    document = yaml.safe_load(printed[0])
    assert document["asyncapi"] == "3.1.0"
    assert document["servers"]["rabbitmq"]["host"] == "broker.example:5672"
