"""AsyncAPI's own parser has nothing to say about any document, and it does speak up where it should."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from sagas_framework.asyncapi import Specification
from tests.asyncapi.tools import Verdict, parse
from tests.servers import Missing, skip_or_fail
from tests.unit.asyncapi.mill import described

Document = dict[str, Any]


def checked(*files: Path) -> Verdict:
    try:
        return parse(*files)
    except Missing as missing:
        skip_or_fail(missing)


def test_no_document_has_a_diagnostic_of_any_severity(
    published: dict[str, Specification], tmp_path: Path
) -> None:
    files = []
    for service, specification in published.items():
        for suffix, text in (("yaml", specification.yaml()), ("json", specification.json())):
            files.append(tmp_path / f"{service}.{suffix}")
            files[-1].write_text(text)

    verdict = checked(*files)

    assert verdict.code == 0, verdict.lines
    for file in files:
        (line,) = verdict.about(file)
        assert line.startswith(": valid AsyncAPI 3.1.0: ")


def test_nor_has_one_with_events(tmp_path: Path) -> None:
    files = []
    for specification in described():
        files.append(tmp_path / f"{specification.service}.yaml")
        files[-1].write_text(specification.yaml())

    verdict = checked(*files)

    assert verdict.code == 0, verdict.lines
    for file in files:
        (line,) = verdict.about(file)
        assert line.startswith(": valid AsyncAPI 3.1.0: ")


# ---- the controls ---------------------------------------------------------------------------------


def _first(section: Document) -> Any:
    return next(iter(section.values()))


def _refers_to_nothing(document: Document) -> None:
    _first(document["operations"])["channel"]["$ref"] = "#/channels/nowhere"


def _is_a_queue_and_an_exchange(document: Document) -> None:
    _first(document["channels"])["bindings"]["amqp"]["exchange"] = {"name": "e", "type": "direct"}


def _takes_a_message_of_another_channel(document: Document) -> None:
    one, other = list(document["channels"])[:2]
    message = next(iter(document["channels"][other]["messages"]))
    operation = next(
        op for op in document["operations"].values() if op["channel"]["$ref"].endswith(f"/{one}")
    )
    operation["messages"] = [{"$ref": f"#/channels/{other}/messages/{message}"}]


def _has_a_discriminator_as_in_openapi(document: Document) -> None:
    _first(document["components"]["schemas"])["discriminator"] = {"propertyName": "type"}


def _has_no_title(document: Document) -> None:
    del document["info"]["title"]


def _is_of_an_older_version(document: Document) -> None:
    document["asyncapi"] = "3.0.0"


CONTROLS: Final[dict[Callable[[Document], None], str]] = {
    _refers_to_nothing: "error invalid-ref",
    _is_a_queue_and_an_exchange: "error asyncapi-document-resolved",
    _takes_a_message_of_another_channel: "error asyncapi3-operation-messages-from-referred-channel",
    _has_a_discriminator_as_in_openapi: "error asyncapi-document-resolved",
    _has_no_title: "error asyncapi-document-resolved",
    _is_of_an_older_version: "info asyncapi-latest-version",
}
"""What is done to a document, and the severity and rule that it must be told with."""


def test_a_document_that_is_wrong_fails_whatever_the_severity(
    documents: dict[str, Document], tmp_path: Path
) -> None:
    files = {}
    for spoil in CONTROLS:
        document = json.loads(json.dumps(documents["restaurant_service"]))
        spoil(document)
        files[spoil] = tmp_path / f"{spoil.__name__.strip('_')}.json"
        files[spoil].write_text(json.dumps(document, indent=2))

    verdict = checked(*files.values())
    alone = checked(files[_is_of_an_older_version])

    assert verdict.code == 1
    for spoil, told in CONTROLS.items():
        lines = verdict.about(files[spoil])
        assert any(told in line for line in lines[:-1]), (spoil.__name__, lines)
        assert lines[-1].endswith(" diagnostics"), lines
    assert alone.code == 1, "a hint alone must fail, too"


@pytest.mark.parametrize("files", [[], ["missing.yaml"]], ids=["none named", "not there"])
def test_nothing_to_check_is_no_pass(files: list[str], tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"Name the documents to check|missing\.yaml cannot be read"):
        checked(*(tmp_path / file for file in files))
