"""``saga contracts diff`` with node and `@asyncapi/diff`, and the gate that our own documents must pass."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from sagas_framework.cli.program import saga
from sagas_framework.contracts import (
    Change,
    Compared,
    Document,
    Effect,
    Report,
    Tools,
    compare,
    document,
    read,
    tools,
)
from sagas_framework.contracts.structure import MODULES_VARIABLE
from tests.servers import Missing, skip_or_fail
from tools.contracts import CURRENT, MODULES, NEW_SERVICES, RELEASED, built, verdict, write

Content = dict[str, Any]
Edit = Callable[[Content], None]

CREATE = "restaurant_service.create_ticket"


@pytest.fixture(scope="module")
def by() -> Tools:
    if not (MODULES / "@asyncapi" / "diff").exists():
        skip_or_fail(Missing("the official tools of AsyncAPI. Run: make asyncapi"))
    return tools(modules=str(MODULES))


# ---- our own documents ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def said_now() -> dict[str, str]:
    """What the services' code says, by the names of files."""
    return built()


@pytest.fixture(scope="module")
def report(by: Tools) -> Report:
    """The verdict on our own documents."""
    return verdict()


def test_the_documents_in_the_repository_are_what_the_code_says(said_now: dict[str, str]) -> None:
    kept = {file.name: file.read_text(encoding="utf-8") for file in CURRENT.glob("*.yaml")}

    assert sorted(kept) == sorted(said_now)
    assert [name for name, text in said_now.items() if kept[name] != text] == [], "Run: make contracts"


def test_nothing_breaks_who_is_still_of_the_last_release(report: Report) -> None:
    broken = [
        f"{one.service}: {change.what} {change.instead}"
        for one in report.compared
        if not one.major
        for change in one.breaking
    ]
    assert broken == [], "Change it back, or raise the major info.version and run: make contracts"
    assert dict(report.missing) == {}
    assert report.passes(majors=True)


def test_every_service_has_been_compared(report: Report, said_now: dict[str, str]) -> None:
    released = {file.name.removesuffix(".yaml") for file in RELEASED.glob("*.yaml")}

    assert {one.service for one in report.compared} == released
    assert {name.removesuffix(".yaml") for name in said_now} <= released | set(NEW_SERVICES)


def test_what_is_written_is_all_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "gone.yaml").write_text("a")
    (tmp_path / "same.yaml").write_text("b")

    written = write(tmp_path, {"same.yaml": "b", "new.yaml": "c"})

    assert [file.name for file in written] == ["gone.yaml", "new.yaml"]
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"same.yaml": "b", "new.yaml": "c"}


# ---- each change has a verdict --------------------------------------------------------------------


@cache
def current() -> list[Document]:
    """Our own documents."""
    return read(CURRENT)


def release(by: Tools, service: str, edit: Edit) -> Compared:
    """What a next release does to the others, in which only one document has changed."""
    old = current()
    new = []
    for one in old:
        content = copy.deepcopy(dict(one.content))
        if one.service == service:
            edit(content)
        new.append(document(content, one.source))
    report = compare(old, new, by=by)
    assert [one.service for one in report.compared if one.changes and one.service != service] == []
    (found,) = (one for one in report.compared if one.service == service)
    return found


def told(found: Compared) -> list[tuple[str, bool]]:
    return [(change.code, change.breaking) for change in found.changes]


def _version(content: Content) -> None:
    content["info"]["version"] = "1.0.1"


def _words(content: Content) -> None:
    content["info"]["description"] = "Cooks."
    content["components"]["schemas"]["CreateTicket"]["title"] = "Ticket"
    content["channels"][CREATE]["description"] = "Tickets."
    content["components"]["messages"][CREATE]["examples"] = []


def _publishing(content: Content) -> None:
    content["operations"][f"receive_{CREATE}"]["bindings"]["amqp"]["deliveryMode"] = 1


def _security(content: Content) -> None:
    content["operations"][f"receive_{CREATE}"]["security"] = [{"type": "X509"}]


def _parameters(content: Content) -> None:
    content["channels"][CREATE]["parameters"] = {"city": {}}


def _unused(content: Content) -> None:
    content["components"]["schemas"]["Unused"] = {"type": "string"}
    content["channels"]["unused"] = {"address": "unused"}


def _optional(content: Content) -> None:
    content["components"]["schemas"]["CreateTicket"]["properties"]["title"] = {"type": "string"}


def _two_at_once(content: Content) -> None:
    _optional(content)
    content["components"]["schemas"]["CreateTicket"]["properties"]["order_id"] = {"type": "string"}


def _root(content: Content) -> None:
    content["x-owner"] = "kitchen"


@pytest.mark.parametrize(
    ("edit", "verdicts"),
    [
        (_version, [("documentation", False)]),
        (_words, [("documentation", False)]),
        (_publishing, [("publishing", False)]),
        (_security, [("unknown", True)]),
        (_parameters, [("unknown", True)]),
        (_root, [("unknown", True)]),
        (_unused, [("document", False)]),
        (_optional, [("payload-changed", False)]),
        (_two_at_once, [("type", True), ("payload-changed", False)]),
        (lambda content: None, []),
    ],
)
def test_nothing_goes_without_a_verdict(by: Tools, edit: Edit, verdicts: list[tuple[str, bool]]) -> None:
    assert told(release(by, "restaurant_service", edit)) == verdicts


def test_a_field_that_is_called_title_is_no_title(by: Tools) -> None:
    (change,) = release(by, "restaurant_service", _optional).changes

    assert (change.message, change.field) == (CREATE, "title")
    assert change.what.startswith(f"In {CREATE} the field title is new (string): ")


def test_what_is_unknown_is_said_to_be(by: Tools) -> None:
    (change,) = release(by, "restaurant_service", _security).breaking

    assert change.pointer == f"/operations/receive_{CREATE}/security"
    assert "has changed (add; @asyncapi/diff calls it" in change.what
    assert "it is not known here what that does to others" in change.what


def test_a_field_that_a_sender_still_leaves_out(by: Tools) -> None:
    def require(content: Content) -> None:
        _optional(content)
        content["components"]["schemas"]["CreateTicket"]["required"].append("title")

    (change,) = release(by, "restaurant_service", require).changes

    assert change.to_json() == {
        "code": "field-missing",
        "effect": "breaking",
        "breaks": "senders of the last release",
        "message": CREATE,
        "field": "title",
        "pointer": f"/components/messages/{CREATE}/payload",
        "what": f"A sender of the last release still sends {CREATE} without the field title; "
        "the new restaurant_service refuses it.",
        "instead": "Give the field title a default here; require it in a later release, when nobody of "
        "the last "
        "release runs and none of its messages is left.",
    }


# ---- the command ------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path: Path, by: Tools, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two folders with the restaurant's document in each."""
    monkeypatch.setenv(MODULES_VARIABLE, str(by.modules))
    for name in ("old", "new"):
        write(tmp_path / name, {"restaurant_service.yaml": (CURRENT / "restaurant_service.yaml").read_text()})
    return tmp_path / "old", tmp_path / "new"


def diff(*arguments: str | os.PathLike[str]) -> Result:
    called = ["contracts", "diff", *map(str, arguments)]
    return CliRunner().invoke(saga, called, prog_name="saga", env={"COLUMNS": None})


def edited(folder: Path, edit: Edit) -> Path:
    file = folder / "restaurant_service.yaml"
    content = yaml.safe_load(file.read_text())
    edit(content)
    file.write_text(yaml.safe_dump(content))
    return file


def _breaking(content: Content) -> None:
    content["components"]["schemas"]["CreateTicket"]["properties"]["order_id"] = {"type": "string"}


def test_nothing_has_changed(folders: tuple[Path, Path]) -> None:
    said = diff(*folders)

    assert (said.exit_code, said.output) == (
        0,
        "restaurant_service 1.0.0 -> 1.0.0: no change\n\nNothing breaks.\n",
    )


def test_a_break_is_told_and_exits_with_1(folders: tuple[Path, Path]) -> None:
    old, new = folders
    edited(new, _two_at_once)

    said = diff(old, new)

    assert said.exit_code == 1
    assert said.output.splitlines() == [
        "restaurant_service 1.0.0 -> 1.0.0: 1 breaking, 1 safe",
        f"  breaking type at {CREATE}, order_id",
        (
            f"    A sender of the last release still sends the field order_id of {CREATE} as integer; "
            "the new restaurant_service takes only string."
        ),
        (
            "    Take integer as before; take only string in a later release, when nobody of the last "
            "release runs and "
            "none of its messages is left."
        ),
        f"  safe payload-changed at {CREATE}, title",
        (
            f"    In {CREATE} the field title is new (string): senders and receivers of both releases "
            "understand each "
            "other."
        ),
        "",
        "1 change breaks what is not redeployed.",
    ]


def test_files_are_compared_as_folders_are(folders: tuple[Path, Path], tmp_path: Path) -> None:
    old, new = folders
    broken = edited(new, _breaking)
    as_json = tmp_path / "new.json"
    as_json.write_text(json.dumps(yaml.safe_load(broken.read_text())))

    assert diff(old / "restaurant_service.yaml", broken).exit_code == 1
    assert diff(old / "restaurant_service.yaml", as_json).output == diff(old, new).output


def test_a_break_is_admitted_with_a_new_major_version(folders: tuple[Path, Path]) -> None:
    old, new = folders
    edited(new, _breaking)

    refused = diff("--allow-major", old, new)
    edited(new, lambda content: content["info"].update(version="2.0.0"))
    admitted = diff("--allow-major", old, new)

    assert refused.exit_code == 1
    assert "Its major version has not grown (1.0.0 -> 1.0.0); raise info.version" in refused.output
    assert admitted.exit_code == 0
    assert "Its major version has grown from 1.0.0 to 2.0.0, so it may." in admitted.output
    assert diff(old, new).exit_code == 1


def test_versions_of_another_kind_do_not_grow(folders: tuple[Path, Path]) -> None:
    old, new = folders
    edited(new, lambda content: content["info"].update(version="next"))
    unbroken = diff("--allow-major", old, new)
    edited(new, _breaking)

    assert unbroken.exit_code == 0
    assert diff("--allow-major", old, new).exit_code == 1


def test_no_older_document_is_no_pass(folders: tuple[Path, Path]) -> None:
    old, new = folders
    (old / "restaurant_service.yaml").unlink()

    without = diff(old, new)
    admitted = diff(old, new, "--new-service", "restaurant_service")

    assert without.exit_code == 2
    assert "not compared: restaurant_service." in without.output
    assert "has no older document to compare with" in without.output
    assert "--new-service restaurant_service" in without.output
    assert admitted.exit_code == 0
    assert "restaurant_service: new in this release, as said" in admitted.output


def test_a_service_that_is_gone_breaks_who_talks_to_it(folders: tuple[Path, Path]) -> None:
    old, new = folders
    other = (CURRENT / "consumer_service.yaml").read_text()
    write(new, {"consumer_service.yaml": other})
    write(
        old,
        {
            "consumer_service.yaml": other,
            "restaurant_service.yaml": (CURRENT / "restaurant_service.yaml").read_text(),
        },
    )

    said = diff(old, new, "--json")

    assert said.exit_code == 1
    services = {one["service"]: one for one in json.loads(said.output)["services"]}
    assert services["consumer_service"]["changes"] == []
    (change,) = services["restaurant_service"]["changes"]
    assert (change["code"], change["effect"]) == ("service-removed", "breaking")


def test_json_has_everything(folders: tuple[Path, Path]) -> None:
    old, new = folders
    edited(new, _breaking)

    answer = json.loads(diff(old, new, "--json").output)

    assert (answer["passes"], answer["breaking"], answer["admitted"], answer["missing"]) == (False, 1, [], {})
    assert answer["services"][0]["service"] == "restaurant_service"
    assert answer["services"][0]["changes"][0]["field"] == "order_id"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing argument 'OLD'"),
        (("nowhere", "{new}"), "There is no file or folder nowhere."),
        (("{old}", "{new}", "--new-service", "kitchen"), "kitchen: expected as new, and not among the new"),
        (
            ("{old}", "{new}", "--new-service", "restaurant_service"),
            "expected as new, and has an older document",
        ),
        (("{old}", "{empty}"), "There is no new document to compare"),
        (
            ("{old}", "{new}", "--node-modules", "nowhere"),
            "There is no @asyncapi/diff in nowhere. Run: npm install",
        ),
        (("{old}", "{new}", "--node", "no-such-node"), "there is no program no-such-node"),
        (("{old}", "{new}", "--strict"), "No such option"),
    ],
)
def test_a_wrong_call_exits_with_2(
    folders: tuple[Path, Path], tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    (tmp_path / "empty").mkdir()
    old, new = folders
    filled = [one.format(old=old, new=new, empty=tmp_path / "empty") for one in arguments]

    result = diff(*filled)

    assert result.exit_code == 2
    assert said in result.output


def test_a_node_that_fails_is_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    node = tmp_path / "node"
    node.write_text("#!/bin/sh\necho 'SyntaxError: too old' >&2\nexit 1\n")
    node.chmod(0o755)

    said = diff(*folders, "--node", node)

    assert said.exit_code == 2
    assert "could not run @asyncapi/diff@0.5.0: SyntaxError: too old" in said.output


def test_a_report_passes_only_if_everything_was_compared() -> None:
    broken = Change("type", Effect.BREAKING, "", "what")

    assert Report([]).passes()
    assert not Report([], missing={"a": "no older document"}).passes(majors=True)
    assert not Report([Compared("a", "1.0.0", "1.1.0", [broken], major=False)]).passes(majors=True)
    assert Report([Compared("a", "1.0.0", "2.0.0", [broken], major=True)]).passes(majors=True)
    assert not Report([Compared("a", "1.0.0", "2.0.0", [broken], major=True)]).passes()
