"""Files of declarative configuration that send to a receiver, as a user writes them."""

from __future__ import annotations

from pathlib import Path

FILE = """
file_format: "1.1"
resource:
  attributes:
    - name: service.name
      value: shop
    - name: team
      value: ${TEAM:-feeds}
meter_provider:
  readers:
    - periodic:
        interval: 500
        exporter:
          otlp_http:
            endpoint: ENDPOINT/v1/metrics
logger_provider:
  processors:
    - batch:
        schedule_delay: 200
        exporter:
          otlp_http:
            endpoint: ENDPOINT/v1/logs
"""


def written(directory: Path, endpoint: str, text: str = FILE, name: str = "otel.yaml") -> str:
    """The path of such a file."""
    path = directory / name
    path.write_text(text.replace("ENDPOINT", endpoint))
    return str(path)
