"""Dashboards as files for others to import: data sources are asked for, plugins are listed.

On import Grafana asks for a data source for each of ``__inputs`` and puts its uid wherever
``${DS_…}`` stands. Our dashboards choose theirs by variables, which they keep: what was chosen
becomes the variable's value. ``__requires`` says which version and plugins a dashboard is for.
"""

from __future__ import annotations

from typing import Any

GRAFANA_VERSION = "12.1.1"
"""That of ``compose.production.yaml``."""
_SOURCES = {
    "prometheus": "Prometheus",
    "loki": "Loki",
    "victoriametrics-logs-datasource": "VictoriaLogs",
}
"""Names of data sources' plugins by their id."""
_PANELS = {
    "heatmap": "Heatmap",
    "logs": "Logs",
    "table": "Table",
    "timeseries": "Time series",
}
"""Names of panels' plugins by their id."""


def uploaded(page: dict[str, Any]) -> dict[str, Any]:
    """A dashboard's JSON as an upload; raises `KeyError` for a plugin that has no name here."""
    variables = [_with_input(each) for each in page["templating"]["list"]]
    plugins = [each["query"] for each in variables if each["type"] == "datasource"]
    panels = sorted({panel["type"] for panel in page["panels"]})
    return {
        "__inputs": [
            {
                "name": _input(plugin),
                "label": _SOURCES[plugin],
                "description": "",
                "type": "datasource",
                "pluginId": plugin,
                "pluginName": _SOURCES[plugin],
            }
            for plugin in plugins
        ],
        "__elements": {},
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": GRAFANA_VERSION},
            *(
                {"type": "datasource", "id": plugin, "name": _SOURCES[plugin], "version": "1.0.0"}
                for plugin in plugins
            ),
            *(
                {"type": "panel", "id": panel, "name": _PANELS[panel], "version": ""}
                for panel in panels
            ),
        ],
        **page,
        "id": None,
        "templating": {**page["templating"], "list": variables},
    }


def _with_input(variable: dict[str, Any]) -> dict[str, Any]:
    if variable["type"] != "datasource":
        return variable
    chosen = f"${{{_input(variable['query'])}}}"
    return {**variable, "current": {"text": chosen, "value": chosen}}


def _input(plugin: str) -> str:
    return f"DS_{_SOURCES[plugin].upper()}"
