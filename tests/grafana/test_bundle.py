"""The archive of rules and dashboards, read by those who read such: jsonnet, Grafana's import."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import _jsonnet
import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.bundle import NAME, archive, contents, main
from grafana.files import HERE, dashboards, generated
from grafana.uploads import GRAFANA_VERSION

CONTENTS = contents()
PAGES = dashboards()
UPLOADS = {name: json.loads(CONTENTS[f"uploads/{name}.json"]) for name in PAGES}


def imported(page: dict[str, Any], uids: dict[str, str]) -> Any:
    """What Grafana makes of an upload, with the data sources that were chosen for its inputs.

    As pkg/services/dashboardimport/utils/dash_template_evaluator.go in Grafana's source has it.
    """
    chosen = {f"${{{each['name']}}}": uids[each["name"]] for each in page["__inputs"]}

    def evaluated(value: Any) -> Any:
        if isinstance(value, str):
            return re.sub(r"\$\{.+?\}", lambda match: chosen.get(match[0], match[0]), value)
        if isinstance(value, dict):
            return {key: evaluated(each) for key, each in value.items() if key != "__inputs"}
        return [evaluated(each) for each in value] if isinstance(value, list) else value

    return evaluated(page)


def sources_of(value: Any) -> set[tuple[str, str]]:
    """Type and uid of each data source that is referred to anywhere in a dashboard."""
    found = set()
    if isinstance(value, dict):
        if isinstance(value.get("datasource"), dict):
            found.add((value["datasource"]["type"], value["datasource"]["uid"]))
        for each in value.values():
            found |= sources_of(each)
    elif isinstance(value, list):
        for each in value:
            found |= sources_of(each)
    return found


@pytest.mark.parametrize("name", UPLOADS)
def test_an_imported_upload_is_the_dashboard_with_its_data_sources_chosen(name: str) -> None:
    upload = UPLOADS[name]
    uids = {each["name"]: f"uid of {each['pluginId']}" for each in upload["__inputs"]}
    page = imported(upload, uids)
    variables = {
        each["name"]: each for each in page["templating"]["list"] if each["type"] == "datasource"
    }
    for each in variables.values():
        assert each.pop("current")["value"] == f"uid of {each['query']}"
    assert {key: page.pop(key) for key in ("__elements", "id")} == {"__elements": {}, "id": None}
    page.pop("__requires")
    assert page == PAGES[name]
    assert len(variables) == len(upload["__inputs"]) == 2


@pytest.mark.parametrize("name", UPLOADS)
def test_each_data_source_of_a_panel_is_one_that_an_upload_asks_for(name: str) -> None:
    upload = UPLOADS[name]
    variables = {
        f"${{{each['name']}}}": each["query"]
        for each in upload["templating"]["list"]
        if each["type"] == "datasource"
    }
    asked = {each["pluginId"] for each in upload["__inputs"]}
    assert {(variables[uid], uid) for _, uid in sources_of(upload)} == sources_of(upload)
    assert set(variables.values()) == asked


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_requires_the_plugins_that_it_uses_and_no_others(name: str) -> None:
    upload = UPLOADS[name]
    required = {(each["type"], each["id"]) for each in upload["__requires"]}
    assert required == {
        ("grafana", "grafana"),
        *(("datasource", each["pluginId"]) for each in upload["__inputs"]),
        *(("panel", panel["type"]) for panel in upload["panels"]),
    }
    assert all(each["name"] for each in upload["__requires"])


def test_the_version_that_is_required_is_that_of_the_reference() -> None:
    compose = yaml.safe_load((HERE.parent / "compose.production.yaml").read_text("utf-8"))
    assert compose["services"]["grafana"]["image"] == f"grafana/grafana:{GRAFANA_VERSION}"


@pytest.mark.parametrize("name", UPLOADS)
def test_an_upload_has_the_form_of_a_dashboard(name: str) -> None:
    read = Dashboard.from_json(UPLOADS[name])
    assert read.title == PAGES[name]["title"]
    assert len(read.panels or ()) == len(PAGES[name]["panels"])


@pytest.mark.parametrize(
    ("mixin", "store"),
    [("mixin.libsonnet", "loki"), ("victorialogs/mixin.libsonnet", "victorialogs")],
)
def test_jsonnet_takes_the_mixin_and_finds_all_rules_and_dashboards(
    tmp_path: Path, mixin: str, store: str
) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(CONTENTS))) as tar:
        tar.extractall(tmp_path, filter="data")
    script = (
        f"local mixin = import '{mixin}'; {{alerts: mixin.prometheusAlerts, "
        "rules: mixin.prometheusRules, dashboards: mixin.grafanaDashboards}"
    )
    made = json.loads(_jsonnet.evaluate_snippet("test", script, jpathdir=[str(tmp_path / NAME)]))
    assert made["alerts"] == yaml.safe_load(CONTENTS["alerts.yaml"])
    assert made["rules"] == yaml.safe_load(CONTENTS["recording.yaml"])
    assert made["dashboards"] == {
        f"celery-memory-{name}.json": PAGES[f"{store}/{name}"]
        for name in ("fleet", "worker", "task")
    }


def test_rules_and_dashboards_are_those_that_are_committed() -> None:
    committed = generated()
    for path, name in (
        ("alerts.yaml", "alerts/alerts.yaml"),
        ("recording.yaml", "alerts/recording.yaml"),
        ("grafana-alerts.yaml", "provisioning/alerting/rules.yaml"),
    ):
        assert CONTENTS[path] == (HERE / name).read_text(encoding="utf-8")
    pages = {path for path in CONTENTS if path.startswith("dashboards/")}
    assert pages == {path for path in committed if path.startswith("dashboards/")}
    assert all(CONTENTS[path] == (HERE / path).read_text(encoding="utf-8") for path in pages)


def test_each_alert_finds_its_runbook_in_the_archive() -> None:
    alerts = [
        rule
        for group in yaml.safe_load(CONTENTS["alerts.yaml"])["groups"]
        for rule in group["rules"]
    ]
    assert alerts
    for rule in alerts:
        assert rule["annotations"]["runbook_url"].endswith(f"/{rule['alert']}.md")
        assert f"runbooks/{rule['alert']}.md" in CONTENTS


def test_the_same_sources_make_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []
    for name in ("one", "two"):
        arguments = ["grafana.bundle", "--to", str(tmp_path / name)]
        monkeypatch.setattr("sys.argv", arguments)
        assert main() == 0
        made.append(Path(capsys.readouterr().out.strip()))
    assert made[0].name == f"{NAME}.tar.gz"
    assert made[0].read_bytes() == made[1].read_bytes()
    with tarfile.open(made[0]) as tar:
        members = tar.getmembers()
    assert [each.name for each in members] == sorted(f"{NAME}/{path}" for path in CONTENTS)
    assert {(each.mtime, each.uid, each.gid, each.uname, each.mode) for each in members} == {
        (0, 0, 0, "", 0o644)
    }


def test_other_addresses_of_runbooks_are_in_the_rules() -> None:
    elsewhere = contents("https://runbooks.example/memory")
    assert "https://runbooks.example/memory/CeleryProcessLost.md" in elsewhere["alerts.yaml"]
