"""Dashboards, recording rules and alerts as code: ``python -m grafana --write`` makes the files."""
