"""Rules, dashboards and compose files before the tools of those who read them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.documentation.blocks import PAGES, blocks_of
from tests.stack.go_build import COMPOSE_CHECK, PROMTOOL, tool_binary
from tests.stack.rule_names import SHIPPED_ALERTS

ROOT = Path(__file__).parents[2]
SECRETS = {"COLLECTOR_TOKEN": "secret", "GRAFANA_PASSWORD": "secret"}
RULE_FILES = sorted((ROOT / "grafana" / "alerts").glob("*.yaml"))
RULE_TESTS = sorted((ROOT / "tests" / "grafana" / "alerts").glob("*.yaml"))


def said_by(command: list[str], **environment: str) -> tuple[int, str]:
    """Exit code and everything that a tool prints."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", RULE_FILES, ids=lambda path: path.stem)
def test_promtool_finds_no_fault_in_the_rules(path: Path) -> None:
    promtool = str(tool_binary(PROMTOOL))
    code, said = said_by([promtool, "check", "rules", "--lint=all", "--lint-fatal", str(path)])
    assert code == 0, said


def test_promtool_takes_the_groups_of_the_prometheus_rule(tmp_path: Path) -> None:
    rule = yaml.safe_load((ROOT / "grafana" / "kubernetes" / "prometheus-rule.yaml").read_text())
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump(rule["spec"]))
    promtool = str(tool_binary(PROMTOOL))
    code, said = said_by([promtool, "check", "rules", "--lint=all", "--lint-fatal", str(path)])
    assert code == 0, said


@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_alert_fires_in_its_scenario_and_not_in_its_twins(path: Path) -> None:
    code, said = said_by([str(tool_binary(PROMTOOL)), "test", "rules", str(path)])
    assert code == 0, said


def test_every_alert_has_a_scenario() -> None:
    assert [path.stem for path in RULE_TESTS] == sorted(SHIPPED_ALERTS)


def test_promtool_takes_every_query_of_the_documentation(tmp_path: Path) -> None:
    queries = [
        block.text for page in PAGES for block in blocks_of(page) if block.language == "promql"
    ]
    assert len(queries) > 15
    rules = [
        {"record": f"documentation:query:n{number}", "expr": query}
        for number, query in enumerate(queries)
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "documentation", "rules": rules}]}))
    code, said = said_by([str(tool_binary(PROMTOOL)), "check", "rules", "--lint=none", str(path)])
    assert code == 0, said


def test_promtool_takes_the_configuration_of_prometheus() -> None:
    config = str(ROOT / "deploy" / "prometheus.yml")
    code, said = said_by([str(tool_binary(PROMTOOL)), "check", "config", "--syntax-only", config])
    assert code == 0, said


def test_docker_compose_would_take_the_demo() -> None:
    code, said = said_by([str(tool_binary(COMPOSE_CHECK)), "compose.yaml"])
    assert code == 0, said


def test_docker_compose_would_take_the_reference_and_asks_for_its_secrets(tmp_path: Path) -> None:
    command = [str(tool_binary(COMPOSE_CHECK)), "compose.production.yaml"]
    secrets = {**SECRETS, "TLS_DIRECTORY": str(tmp_path)}
    for missing in secrets:
        code, said = said_by(command, **{**secrets, missing: ""})
        assert code != 0
        assert f"required variable {missing} is missing a value" in said
    code, said = said_by(command, **secrets)
    assert code == 0, said


def test_docker_compose_would_take_victorialogs_in_the_place_of_loki(tmp_path: Path) -> None:
    command = [
        str(tool_binary(COMPOSE_CHECK)),
        "compose.production.yaml",
        "compose.victorialogs.yaml",
    ]
    code, said = said_by(command, **SECRETS, TLS_DIRECTORY=str(tmp_path))
    assert code == 0, said
    services = yaml.safe_load(said)["services"]
    assert "loki" not in services
    endpoint = services["collector"]["environment"]["EVENTS_OTLP_ENDPOINT"]
    assert endpoint == "http://victorialogs:9428/insert/opentelemetry"
    sources = [
        mount["source"]
        for mount in services["grafana"]["volumes"]
        if mount["target"] == "/etc/grafana/provisioning/datasources"
    ]
    assert [Path(source).name for source in sources] == ["datasources-victorialogs"]


COMPOSE_FILES = sorted(path.name for path in ROOT.glob("compose*.yaml"))


@pytest.mark.parametrize("name", COMPOSE_FILES)
def test_what_the_compose_files_mount_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    mounted = [line.strip(" -").partition(":")[0] for line in text.splitlines() if "- ./" in line]
    assert mounted
    assert [path for path in mounted if not (ROOT / path).exists()] == []
