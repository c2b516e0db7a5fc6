"""The committed dashboards and rules are those that the code makes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import alerting
from grafana.files import HERE, dashboards, generated
from grafana.rules import PROJECT, RUNBOOKS, RUNBOOKS_PATH, Alert

FILES = generated()
RUNBOOK_FILES = sorted((HERE.parent / RUNBOOKS_PATH).glob("*.md"))
ALERTS = {rule.name: rule for rule in alerting.ALERTS}


@pytest.mark.parametrize("path", FILES)
def test_the_committed_file_is_what_the_code_makes(path: str) -> None:
    assert (HERE / path).read_text(encoding="utf-8") == FILES[path]


def test_nothing_else_is_committed_beside_them() -> None:
    committed = {
        *HERE.glob("dashboards/**/*.*"),
        *HERE.glob("alerts/*"),
        *HERE.glob("*/alerting/*"),
        *HERE.glob("kubernetes/*"),
    }
    assert {str(path.relative_to(HERE)) for path in committed} == set(FILES)


def rules_of(path: str) -> dict[str, Any]:
    """The alerts of a file by name."""
    content = yaml.safe_load(FILES[path])
    rules = [rule for group in content["groups"] for rule in group["rules"]]
    return {rule.get("alert") or rule["title"]: rule for rule in rules}


@pytest.mark.parametrize("name", ALERTS)
def test_prometheus_and_grafana_are_given_the_same_alert(name: str) -> None:
    ours = rules_of("alerts/alerts.yaml")[name]
    theirs = rules_of("provisioning/alerting/rules.yaml")[name]
    assert theirs["data"][0]["model"]["expr"] == ours["expr"]
    assert theirs["for"] == ours["for"]
    assert theirs["labels"] == ours["labels"]
    for text in ("summary", "runbook_url"):
        assert theirs["annotations"][text] == ours["annotations"][text]


@pytest.mark.parametrize("rule", ALERTS.values(), ids=lambda rule: rule.name)
def test_an_alert_has_a_severity_words_and_a_runbook(rule: Alert) -> None:
    assert rule.severity in ("critical", "warning")
    assert rule.summary
    assert rule.description.endswith(".")
    path = rule.runbook().removeprefix(f"{PROJECT}/blob/main/")
    assert path == f"{RUNBOOKS_PATH}/{rule.name}.md"
    runbook = (HERE.parent / path).read_text(encoding="utf-8")
    assert runbook.startswith(f"# {rule.name}\n")
    headings = [line for line in runbook.splitlines() if line.startswith("## ")]
    assert headings == ["## What it means", "## Where to look", "## What to do"]
    assert "```sh\n" in runbook.partition("## What to do")[2]


def test_the_runbooks_are_where_the_project_says_that_it_is() -> None:
    assert f'Source = "{PROJECT}"' in (HERE.parent / "pyproject.toml").read_text(encoding="utf-8")
    assert f"  project: {PROJECT}\n" in (HERE.parent / "mkdocs.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_its_runbook_in_the_site_and_in_the_table_of_alerts(name: str) -> None:
    site = HERE.parent / "docs" / "site"
    assert f"\n      - {name}: runbooks/{name}.md\n" in (site.parents[1] / "mkdocs.yml").read_text()
    table = (site / "dashboards-and-alerts.md").read_text(encoding="utf-8")
    assert f"| [`{name}`](runbooks/{name}.md) |" in table


@pytest.mark.parametrize("path", RUNBOOK_FILES, ids=lambda path: path.stem)
def test_a_runbook_quotes_titles_of_existing_panels(path: Path) -> None:
    quoted = re.findall(r'\*(\w+)\*: "([^"]+)"', " ".join(path.read_text("utf-8").split()))
    titles = {
        (name.partition("/")[2].title(), panel["title"])
        for name, page in dashboards().items()
        for panel in page["panels"]
    }
    assert set(quoted) <= titles


def test_there_is_no_runbook_without_its_alert() -> None:
    runbooks = {path.stem for path in RUNBOOK_FILES} - {"index"}
    assert runbooks == set(ALERTS)


def test_the_base_of_the_runbooks_is_set_in_one_place() -> None:
    elsewhere = generated("https://runbooks.example/memory/")
    assert RUNBOOKS not in elsewhere["alerts/alerts.yaml"]
    assert "https://runbooks.example/memory/CeleryProcessLost.md" in elsewhere["alerts/alerts.yaml"]
    pages = generated("https://docs.example/{alert}.html")["alerts/alerts.yaml"]
    assert "runbook_url: https://docs.example/CeleryProcessLost.html\n" in pages


def test_the_address_of_grafana_is_set_in_one_place() -> None:
    elsewhere = generated(grafana="https://grafana.example/")["alerts/alerts.yaml"]
    addresses = re.findall(r"dashboard_url: (.*)", elsewhere)
    assert len(addresses) == len(ALERTS)
    assert all(each.startswith("https://grafana.example/d/celery-memory-") for each in addresses)


@pytest.mark.parametrize("rule", ALERTS.values(), ids=lambda rule: rule.name)
def test_only_a_workers_alert_opens_a_page_of_its_job(rule: Alert) -> None:
    assert ("var-job=" in rule.page()) == (not rule.name.startswith("CeleryCollector"))
