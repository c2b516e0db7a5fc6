"""The names of the alerts as the committed rule file has them."""

from __future__ import annotations

import yaml

from tests.stack.prometheus import RULES


def _names() -> tuple[str, ...]:
    content = yaml.safe_load((RULES / "alerts.yaml").read_text(encoding="utf-8"))
    return tuple(rule["alert"] for group in content["groups"] for rule in group["rules"])


SHIPPED_ALERTS = _names()
