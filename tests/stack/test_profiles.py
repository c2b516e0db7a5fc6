"""A real Collector takes a capture as a profile, and what it passes on is what was captured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_celery_memory.captures.directory import CaptureDirectory
from otel_celery_memory.cli import main
from tests.processes import wait_until
from tests.stack.collector import DEBUG, Collector, running_collector
from tests.stack.collector_build import collector_binary
from tests.unit.captures.examples import CAPTURE, LEAK

PROFILES = (*DEBUG, "profiles.yaml")
GATE = ("--feature-gates=service.profilesSupport",)


def passed_on(file: Path) -> list[dict[str, Any]]:
    """The requests that the Collector wrote."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def by_task_and_leaf(request: dict[str, Any], kind: str) -> dict[tuple[str, str, int], int]:
    """The values of the profile of this kind, by task, function and line of the leaf."""
    tables = request["dictionary"]
    text = tables["stringTable"]
    found = {}
    for profile in request["resourceProfiles"][0]["scopeProfiles"][0]["profiles"]:
        if text[profile["sampleType"]["typeStrindex"]] != kind:
            continue
        for sample in profile["samples"]:
            stack = tables["stackTable"][sample["stackIndex"]]
            location = tables["locationTable"][stack["locationIndices"][0]]
            (line,) = location["lines"]
            function = tables["functionTable"][line["functionIndex"]]
            task = ""
            for number in sample.get("attributeIndices", []):
                task = tables["attributeTable"][number]["value"]["stringValue"]
            place = (task, text[function["nameStrindex"]], int(line.get("line", 0)))
            found[place] = int(sample["values"][0])
    return found


def shown(collector: Collector, tmp_path: Path) -> int:
    saved = CaptureDirectory(tmp_path / "captures").save(CAPTURE)
    return main(["show", str(saved), "--otlp-profile", collector.otlp_http_endpoint])


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def test_a_collector_with_the_gate_passes_on_each_site_with_its_task_and_stack(
    tmp_path: Path,
) -> None:
    file = tmp_path / "profiles.jsonl"
    settings = {"COLLECTOR_PROFILES_FILE": str(file)}
    with running_collector(collector_binary(), tmp_path, PROFILES, settings, GATE) as collector:
        assert shown(collector, tmp_path) == 0
        (request,) = wait_until("it is passed on", lambda: passed_on(file), 30)
    assert by_task_and_leaf(request, "inuse_space") == {
        ("feeds.refresh", "json/encoder.py:200", 200): LEAK.size_bytes,
        ("feeds.refresh", "refresh", 50): 2_048,
        ("mail.send", "app/mail.py:9", 9): -512,
        ("", "(other sites)", 0): 300,
    }
    assert by_task_and_leaf(request, "inuse_objects")["feeds.refresh", "refresh", 50] == 2
    # The Collector puts these into the table of strings too.
    text = request["dictionary"]["stringTable"]
    resource = request["resourceProfiles"][0]["resource"]["attributes"]
    named = {text[e["keyStrindex"]]: text[e["value"]["stringValueStrindex"]] for e in resource}
    assert named["service.instance.id"] == "celery@web-1"


def test_a_collector_without_the_gate_is_named_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with running_collector(collector_binary(), tmp_path) as collector:
        assert shown(collector, tmp_path) == 2
    assert "answered 404: is its gate service.profilesSupport on" in capsys.readouterr().err
