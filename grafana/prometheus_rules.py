"""Rule files for Prometheus; Grafana can import them too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana.rules import Alert, Group, Recording
from grafana.yaml_text import yaml_text


def rule_file(groups: Sequence[Group], runbooks: str, grafana: str) -> str:
    """The text of a rule file; ``runbooks`` and ``grafana`` are the bases of its links."""
    return yaml_text({"groups": [_group(group, runbooks, grafana) for group in groups]})


def _group(group: Group, runbooks: str, grafana: str) -> dict[str, Any]:
    return {
        "name": group.name,
        "interval": group.interval,
        "rules": [
            _alert(rule, runbooks, grafana) if isinstance(rule, Alert) else _recording(rule)
            for rule in group.rules
        ],
    }


def _recording(rule: Recording) -> dict[str, Any]:
    return {"record": rule.name, "expr": rule.expression}


def _alert(rule: Alert, runbooks: str, grafana: str) -> dict[str, Any]:
    return {
        "alert": rule.name,
        "expr": rule.expression,
        "for": rule.for_,
        **({"keep_firing_for": rule.keep_firing_for} if rule.keep_firing_for else {}),
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description + rule.detail,
            "runbook_url": rule.runbook(runbooks),
            "dashboard_url": rule.page(grafana),
        },
    }
