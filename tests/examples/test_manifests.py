"""Files for those who run workers, before the tools and schemas of those who read them."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from grafana.files import dashboards, generated
from otel_celery_memory import environment_variables
from tests.processes import require

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = (
    DEPLOY / "kubernetes" / "worker.yaml",
    DEPLOY / "kubernetes" / "collector-agent.yaml",
    ROOT / "grafana" / "kubernetes" / "dashboards.yaml",
)
WORKERS = (
    DEPLOY / "celery-shop.service",
    DEPLOY / "supervisord.conf",
    DEPLOY / "kubernetes" / "worker.yaml",
)


def objects(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.stem)
def test_kubernetes_schemas_take_each_object_and_know_each_of_its_fields(path: Path) -> None:
    found = objects(path)
    assert found
    for each in found:
        kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_the_schemas_refuse_what_is_misspelt() -> None:
    [_, worker] = objects(DEPLOY / "kubernetes" / "worker.yaml")
    worker["spec"]["replica"] = worker["spec"].pop("replicas")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(worker, kubernetes_validate.latest_version(), strict=True)


def test_the_prometheus_rule_has_the_groups_that_prometheus_is_given() -> None:
    [rule] = objects(ROOT / "grafana" / "kubernetes" / "prometheus-rule.yaml")
    files = generated()
    groups = [
        group
        for name in ("recording", "alerts")
        for group in yaml.safe_load(files[f"alerts/{name}.yaml"])["groups"]
    ]
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert rule["spec"] == {"groups": groups}


def test_the_map_of_dashboards_has_those_for_loki() -> None:
    [found] = objects(ROOT / "grafana" / "kubernetes" / "dashboards.yaml")
    assert {name: json.loads(text) for name, text in found["data"].items()} == {
        f"celery-memory-{name.removeprefix('loki/')}.json": page
        for name, page in dashboards().items()
        if name.startswith("loki/")
    }


def test_the_agent_of_kubernetes_has_the_configuration_of_agents() -> None:
    [configuration, _] = objects(DEPLOY / "kubernetes" / "collector-agent.yaml")
    text = (ROOT / "collector-config" / "gateway" / "agent.yaml").read_text(encoding="utf-8")
    assert configuration["data"] == {"agent.yaml": text}


def test_what_the_agent_of_kubernetes_is_told_is_a_variable_of_its_configuration() -> None:
    [configuration, agent] = objects(DEPLOY / "kubernetes" / "collector-agent.yaml")
    [container] = agent["spec"]["template"]["spec"]["containers"]
    read = set(re.findall(r"\$\{env:(\w+)", configuration["data"]["agent.yaml"]))
    assert {each["name"] for each in container["env"]} - {"GOMEMLIMIT"} <= read
    assert {"COLLECTOR_TOKEN", "GATEWAY_OTLP_ENDPOINT"} <= {
        each["name"] for each in container["env"]
    }


def test_workers_and_agents_of_kubernetes_run_the_collector_of_the_reference() -> None:
    compose = yaml.safe_load((ROOT / "compose.production.yaml").read_text(encoding="utf-8"))
    [_, agent] = objects(DEPLOY / "kubernetes" / "collector-agent.yaml")
    [container] = agent["spec"]["template"]["spec"]["containers"]
    assert container["image"] == compose["services"]["collector"]["image"]


@pytest.mark.parametrize("path", WORKERS, ids=lambda path: path.stem)
def test_each_setting_of_ours_is_one_that_there_is(path: Path) -> None:
    named = set(re.findall(r"OTEL_CELERY_MEMORY_\w+", path.read_text(encoding="utf-8")))
    assert named
    assert named <= set(vars(environment_variables))


def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    assert verified(tmp_path, (DEPLOY / "celery-shop.service").read_text("utf-8")) == (0, "")


def test_systemd_would_find_a_key_that_there_is_not(tmp_path: Path) -> None:
    text = (DEPLOY / "celery-shop.service").read_text("utf-8").replace("KillMode", "KilMode")
    assert "KilMode" in verified(tmp_path, text)[1]


def verified(directory: Path, text: str) -> tuple[int, str]:
    """What ``systemd-analyze verify`` says of a unit, whose program is one that is here."""
    unit = directory / "celery-shop.service"
    unit.write_text(text.replace("/srv/shop/venv/bin/celery", sys.executable))
    done = subprocess.run(
        [require("systemd-analyze", "the package systemd"), "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    lines = (done.stdout + done.stderr).splitlines()
    return done.returncode, "\n".join(line for line in lines if unit.name in line)


def test_supervisor_reads_the_program_as_it_is_meant(tmp_path: Path) -> None:
    text = (DEPLOY / "supervisord.conf").read_text(encoding="utf-8")
    here = configparser.RawConfigParser()
    here.read_string(text)
    meant = here["program:celery-shop"]
    read = subprocess.run(
        [sys.executable, "-c", READ_BY_SUPERVISOR, str(supervised(tmp_path, text))],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    program = json.loads(read.stdout)
    assert program["command"].startswith(f"{sys.executable} -A shop worker --hostname=shop@")
    assert "%" not in program["command"]
    assert program["stopwaitsecs"] == int(meant["stopwaitsecs"])
    assert (program["stopasgroup"], program["killasgroup"]) == (False, True)
    assert program["environment"]["OTEL_SERVICE_NAME"] == "shop"
    assert program["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"


READ_BY_SUPERVISOR = """
import json, sys
from supervisor.options import ServerOptions
options = ServerOptions()
options.realize(["-c", sys.argv[1]])
[group] = options.process_group_configs
[program] = group.process_configs
print(json.dumps({name: getattr(program, name) for name in (
    "command", "stopwaitsecs", "stopasgroup", "killasgroup", "environment")}))
"""


def supervised(directory: Path, text: str) -> Path:
    """The configuration with a user, a program and a directory that are here."""
    path = directory / "supervisord.conf"
    for theirs, ours in (
        ("user=celery", "user=root"),
        ("/srv/shop/venv/bin/celery", sys.executable),
        ("/srv/shop", str(directory)),
    ):
        assert theirs in text
        text = text.replace(theirs, ours)
    path.write_text(text)
    return path
