"""``python -m grafana.bundle`` writes rules, dashboards and runbooks as one archive.

It is made like a mixin: ``mixin.libsonnet`` has ``prometheusAlerts``, ``prometheusRules`` and
``grafanaDashboards``. The same sources make the same bytes.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import tarfile
from pathlib import Path

from grafana.files import HERE, dashboards, generated
from grafana.rules import GRAFANA, RUNBOOKS, RUNBOOKS_PATH
from grafana.stores import STORES
from grafana.uploads import uploaded
from otel_celery_memory.conventions import VERSION

NAME = f"celery-memory-mixin-{VERSION}"
_ROOT = HERE.parent
_MIXIN = """\
// For Prometheus, Alertmanager and Grafana; events are in {title}.
{{
  prometheusAlerts+:: std.parseYaml(importstr '{up}alerts.yaml'),
  prometheusRules+:: std.parseYaml(importstr '{up}recording.yaml'),
  grafanaDashboards+:: {{
    'celery-memory-fleet.json': (import '{up}dashboards/{store}/fleet.json'),
    'celery-memory-worker.json': (import '{up}dashboards/{store}/worker.json'),
    'celery-memory-task.json': (import '{up}dashboards/{store}/task.json'),
  }},
}}
"""
_README = """\
# Celery memory: rules and dashboards

For what otel_celery_memory {version} sends of Celery workers.

- `recording.yaml`: rules for Prometheus, which the dashboards need. `alerts.yaml`: its alerts.
  `grafana-alerts.yaml`: the same alerts, for Grafana's provisioning instead.
- `dashboards/loki` and `dashboards/victorialogs`: for provisioning, by where events are stored.
  Without a store of events take either one: only its panels of events stay empty.
- `uploads`: the same dashboards for the *Import* page of Grafana, or a site that shares
  dashboards: they ask for their data sources.
- `mixin.libsonnet` (events in Loki) and `victorialogs/mixin.libsonnet` (in VictoriaLogs):
  `prometheusAlerts`, `prometheusRules` and `grafanaDashboards` for tools that take mixins.
- `runbooks`: what each alert means and what to do.
"""


def contents(runbooks: str = RUNBOOKS, grafana: str = GRAFANA) -> dict[str, str]:
    """Text by path in the archive."""
    files = generated(runbooks, grafana)
    loki, victorialogs = STORES
    return {
        "README.md": _README.format(version=VERSION),
        "LICENSE": (_ROOT / "LICENSE").read_text(encoding="utf-8"),
        "mixin.libsonnet": _MIXIN.format(title=loki.title, store=loki.name, up=""),
        f"{victorialogs.name}/mixin.libsonnet": _MIXIN.format(
            title=victorialogs.title, store=victorialogs.name, up="../"
        ),
        "alerts.yaml": files["alerts/alerts.yaml"],
        "recording.yaml": files["alerts/recording.yaml"],
        "grafana-alerts.yaml": files["provisioning/alerting/rules.yaml"],
        **{path: text for path, text in files.items() if path.startswith("dashboards/")},
        **{
            f"uploads/{name}.json": json.dumps(uploaded(page), indent=2, ensure_ascii=False) + "\n"
            for name, page in dashboards().items()
        },
        **{
            f"runbooks/{path.name}": path.read_text(encoding="utf-8")
            for path in (_ROOT / RUNBOOKS_PATH).glob("*.md")
        },
    }


def archive(texts: dict[str, str]) -> bytes:
    """A compressed archive of these files, in order of their paths, with no time and no owner."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(texts):
            data = texts[path].encode()
            info = tarfile.TarInfo(f"{NAME}/{path}")
            info.size, info.mode = len(data), 0o644
            tar.addfile(info, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), mtime=0)


def main() -> int:
    """Writes the archive."""
    parser = argparse.ArgumentParser(prog="python -m grafana.bundle", description=__doc__)
    parser.add_argument("--to", type=Path, default=_ROOT / "dist", help="directory of the archive")
    parser.add_argument("--runbooks", default=RUNBOOKS, help="where runbooks are served")
    parser.add_argument("--grafana", default=GRAFANA, help="where Grafana is, for links to pages")
    options = parser.parse_args()
    options.to.mkdir(parents=True, exist_ok=True)
    path = options.to / f"{NAME}.tar.gz"
    path.write_bytes(archive(contents(options.runbooks, options.grafana)))
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
