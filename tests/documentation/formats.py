"""Checks blocks that are no commands: Python, YAML, units of systemd, PromQL; and names."""

from __future__ import annotations

import ast
import configparser
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from grafana import alerting, recordings
from grafana.names import label, series
from otel_celery_memory import conventions as c
from otel_celery_memory.settings import Settings
from tests.documentation import shell
from tests.documentation.blocks import ROOT
from tests.grafana.promql_text import grouping, selectors

POD = {"containers", "volumes", "shareProcessNamespace"}
KUBERNETES: Mapping[str, Collection[str]] = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "metadata": {"name", "labels", "namespace"},
    "spec": {"serviceName", "replicas", "selector", "template", *POD},
    "selector": {"matchLabels"},
    "template": {"metadata", "spec"},
    "containers": {"name", "image", "command", "env", "resources", "volumeMounts"},
    "env": {"name", "value", "valueFrom"},
    "valueFrom": {"fieldRef", "secretKeyRef"},
    "fieldRef": {"fieldPath"},
    "secretKeyRef": {"name", "key"},
    "resources": {"limits", "requests"},
    "limits": {"memory", "cpu"},
    "volumeMounts": {"name", "mountPath"},
    "volumes": {"name", "emptyDir"},
}
"""The fields that may stand in each field of a manifest, as far as the documentation uses them."""
FREE = {"matchLabels", "labels", "emptyDir"}
UNIT: Mapping[str, Collection[str]] = {
    "Unit": {"Description", "After"},
    "Service": {
        *("User", "WorkingDirectory", "Environment", "ExecStart", "Restart", "MemoryMax"),
        *("StateDirectory", "StateDirectoryMode"),
    },
    "Install": {"WantedBy"},
}
OF_PROMETHEUS = {"up", "target_info", "__name__"}
"""With what `selectors` makes of a selector that has no name but a matcher of it."""
LABELS_OF_RESOURCES = {"job", "instance", "le", "k8s_pod_name", "k8s_node_name"}
PROVIDERS = {"meter_provider", "logger_provider", "tracer_provider"}
_PARTS = ("_bucket", "_sum", "_count")


def python_problems(text: str, directory: Path) -> Iterator[str]:
    """Runs a block, whole, in a directory of its own; and keywords of `instrument` are settings."""
    known = {item.name for item in fields(Settings)} | PROVIDERS
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "instrument":
            yield from (f"no setting {each.arg}" for each in node.keywords if each.arg not in known)
    places = os.pathsep.join(map(str, shell.PLACES))
    done = subprocess.run(
        [sys.executable, "-c", text],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": places},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        yield done.stderr


def yaml_problems(text: str) -> Iterator[str]:
    """Of a Kubernetes manifest, or of a part of what our Prometheus is started with."""
    document = yaml.safe_load(text)
    if "file_format" in document:
        return  # read by OpenTelemetry's own reader: tests/otel/test_page.py
    if "apiVersion" in document:
        yield from _manifest_problems(document, "")
    else:
        ours = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text("utf-8"))
        if not _is_part(document, ours):
            yield "it is no part of deploy/prometheus.yml"


def _manifest_problems(value: Any, of: str) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _manifest_problems(each, of)
    elif isinstance(value, dict) and of not in FREE:
        yield from (f"{of or 'a manifest'} has no {each}" for each in {*value} - {*KUBERNETES[of]})
        if of == "env":
            yield from _unknown_variable(value["name"])
        if "command" in value:
            yield from shell.problems(
                " ".join(re.sub(r"\$\(.*?\)", "x", w) for w in value["command"])
            )
        for key, each in value.items():
            if isinstance(each, (dict, list)) and key != "command":
                yield from _manifest_problems(each, key)


def _unknown_variable(name: str) -> Iterator[str]:
    if name not in shell.NAMES_OF_EXAMPLES:
        yield from shell.unknown_variable(name)


def _is_part(part: Any, whole: Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and _is_part(each, whole[key]) for key, each in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return all(any(_is_part(each, other) for other in whole) for each in part)
    return bool(part == whole)


def unit_problems(text: str) -> Iterator[str]:
    """Of a unit of systemd."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    for section in unit.sections():
        known = UNIT.get(section, ())
        yield from (f"[{section}] has no {each}" for each in unit[section] if each not in known)
    # The parser keeps the last of several.
    for name in re.findall(r"^Environment=(\w+)=", text, re.MULTILINE):
        yield from shell.unknown_variable(name)
    for command in re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE):
        program, _, rest = command.replace("%%", "%").partition(" ")
        yield from shell.problems(f"{Path(program).name} {rest}")


def promql_problems(text: str) -> Iterator[str]:
    """Series that nobody sends, labels that none has, and brackets that do not close."""
    for opening, closing in ("()", "[]", "{}"):
        if text.count(opening) != text.count(closing):
            yield f"{opening} and {closing} do not match"
    for each in selectors(text):
        if each.name not in _series():
            yield f"nobody sends {each.name}"
        for name in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", each.matchers):
            if name not in _labels() | {"__name__"}:
                yield f"no series has the label {name}"
    yield from (f"no series has the label {each}" for each in grouping(text) - _labels())


@cache
def _series() -> frozenset[str]:
    ours = {series(metric) for metric in c.METRICS}
    parts = {name + part for name in ours for part in _PARTS}
    recorded = {
        rule.name for group in recordings.GROUPS for rule in group.rules if hasattr(rule, "name")
    }
    asked = {
        each.name
        for rule in alerting.ALERTS
        for each in selectors(rule.expression)
        if each.name.startswith("otelcol_")
    }
    measured = re.findall(
        r"\botelcol_\w+", (ROOT / "tests/stack/test_gateway.py").read_text("utf-8")
    )
    queue = {"otelcol_exporter_queue_capacity"}
    return frozenset(ours | parts | recorded | asked | {*measured} | queue | OF_PROMETHEUS)


@cache
def _labels() -> frozenset[str]:
    ours = {label(name) for metric in c.METRICS for name in metric.attributes}
    return frozenset(ours | LABELS_OF_RESOURCES)


@cache
def names_of_telemetry() -> frozenset[str]:
    """Every metric, attribute and event."""
    found = {metric.name for metric in c.METRICS} | {event.name for event in c.EVENTS}
    for holder in (*c.METRICS, *c.EVENTS):
        found |= {*holder.attributes}
    return frozenset(found | {item.name for item in c.SPAN_ATTRIBUTES})
