"""The same alerts as Grafana provisions them, for installations whose Prometheus runs no rules."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from grafana.rules import Alert, Group
from grafana.yaml_text import yaml_text

FOLDER = "Celery memory"
DATASOURCE_UID = "prometheus"
"""The uid that grafana/provisioning/datasources gives Prometheus."""

_LOOKBACK_S = 600


def provisioned(groups: Sequence[Group], runbooks: str) -> str:
    """The text of a file for Grafana's provisioning directory ``alerting``."""
    content = {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group.name,
                "folder": FOLDER,
                "interval": group.interval,
                "rules": [_rule(rule, runbooks) for rule in group.rules if isinstance(rule, Alert)],
            }
            for group in groups
        ],
    }
    return yaml_text(content)


def _rule(rule: Alert, runbooks: str) -> dict[str, Any]:
    return {
        "uid": f"celery-{hashlib.sha256(rule.name.encode()).hexdigest()[:16]}",
        "title": rule.name,
        "condition": "C",
        "data": [
            {
                "refId": "A",
                "relativeTimeRange": {"from": _LOOKBACK_S, "to": 0},
                "datasourceUid": DATASOURCE_UID,
                "model": {"refId": "A", "expr": rule.expression, "instant": True, "range": False},
            },
            # As in Prometheus, each series that the expression returns is an alert, whatever its
            # value; Grafana's own threshold would compare the value.
            _expression("B", {"type": "math", "expression": _EXISTS}),
            _expression(
                "C",
                {
                    "type": "threshold",
                    "expression": "B",
                    "conditions": [{"evaluator": {"type": "gt", "params": [0]}}],
                },
            ),
        ],
        "for": rule.for_,
        **({"keepFiringFor": rule.keep_firing_for} if rule.keep_firing_for else {}),
        # No data means that the condition does not hold.
        "noDataState": "OK",
        "execErrState": "Error",
        "labels": {"severity": rule.severity},
        "annotations": {
            "summary": rule.summary,
            "description": rule.description.replace("$value", "$values.A.Value"),
            "runbook_url": rule.runbook(runbooks),
            "__dashboardUid__": rule.panel.dashboard,
            "__panelId__": str(rule.panel.number),
        },
    }


_EXISTS = "is_number($A) || is_nan($A) || is_inf($A)"


def _expression(ref: str, model: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "refId": ref,
        "relativeTimeRange": {"from": 0, "to": 0},
        "datasourceUid": "__expr__",
        "model": {"refId": ref, **model},
    }
