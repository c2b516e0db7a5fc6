"""The rule whose scenario takes an hour, with minutes made seconds.

Every duration of the shipped rules is divided by 60 and every name gets a prefix; nothing else is
changed, so that the same expressions are evaluated on real data within minutes.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.stack.prometheus import RULES

PREFIX = "Scaled"
SLOW = ("CeleryMemoryExhaustion",)

_DURATION = re.compile(r"(?<![\w.])(\d+)([mh])(?!\w)")
_RECORDED = re.compile(r"\b(job[a-z_]*:\w+:\w+)")


def scaled_rules() -> str:
    """A rule file with the recording rules and the slow alert, 60 times faster."""
    groups = [
        group
        for name in ("recording.yaml", "alerts.yaml")
        for group in yaml.safe_load((RULES / name).read_text(encoding="utf-8"))["groups"]
    ]
    made = [{**_scaled_group(group), "name": f"scaled_{group['name']}"} for group in groups]
    return yaml.safe_dump({"groups": [group for group in made if group["rules"]]}, width=10_000)


def _scaled_group(group: dict[str, Any]) -> dict[str, Any]:
    rules = [_scaled(rule) for rule in group["rules"] if rule.get("alert", SLOW[0]) in SLOW]
    return {"interval": "1s", "rules": rules}


def _scaled(rule: dict[str, Any]) -> dict[str, Any]:
    made = {**rule, "expr": _faster(rule["expr"])}
    if "record" in rule:
        made["record"] = _RECORDED.sub(r"scaled_\1", rule["record"])
    else:
        made |= {"alert": f"{PREFIX}{rule['alert']}", "for": _faster(rule["for"])}
    return made


def _faster(text: str) -> str:
    seconds = {"m": 1, "h": 60}
    text = _DURATION.sub(lambda found: f"{int(found[1]) * seconds[found[2]]}s", text)
    return _RECORDED.sub(r"scaled_\1", text).replace("4 * 3600", "4 * 60")
