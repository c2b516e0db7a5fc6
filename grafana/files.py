"""Which files are generated, and their text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from grafana import alerting, recordings
from grafana.fleet import fleet
from grafana.grafana_rules import provisioned
from grafana.kubernetes import dashboards_map, prometheus_rule
from grafana.prometheus_rules import rule_file
from grafana.rules import GRAFANA, RUNBOOKS
from grafana.stores import LOKI, STORES
from grafana.task import task
from grafana.worker import worker

HERE = Path(__file__).resolve().parent
PAGES = {"fleet": fleet, "worker": worker, "task": task}


def dashboards() -> dict[str, dict[str, Any]]:
    """Each dashboard's JSON by the name of its store and page: ``loki/fleet``."""
    pages = {
        f"{store.name}/{name}": page(store) for store in STORES for name, page in PAGES.items()
    }
    return {name: json.loads(JSONEncoder().encode(made.build())) for name, made in pages.items()}


def generated(runbooks: str = RUNBOOKS, grafana: str = GRAFANA) -> dict[str, str]:
    """Text by path below ``grafana/``."""
    pages = dashboards()
    recording = rule_file(recordings.GROUPS, runbooks, grafana)
    alerts = rule_file(alerting.GROUPS, runbooks, grafana)
    return {
        **{
            f"dashboards/{name}.json": json.dumps(page, indent=2, ensure_ascii=False) + "\n"
            for name, page in pages.items()
        },
        "alerts/recording.yaml": recording,
        "alerts/alerts.yaml": alerts,
        "kubernetes/prometheus-rule.yaml": prometheus_rule([recording, alerts]),
        "kubernetes/dashboards.yaml": dashboards_map(
            {name: pages[f"{LOKI.name}/{name}"] for name in PAGES}
        ),
        "provisioning/alerting/rules.yaml": provisioned(alerting.GROUPS, runbooks),
    }
