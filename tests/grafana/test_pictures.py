"""Pictures of the dashboards are drawn from answers, and are SVG."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from docs.pictures import picture
from grafana.files import dashboards

PAGES = dashboards()
SVG = "{http://www.w3.org/2000/svg}"


def words(drawn: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


@pytest.mark.parametrize("name", PAGES)
def test_a_picture_without_data_has_the_question_of_every_panel(name: str) -> None:
    titles = [panel["title"] for panel in PAGES[name]["panels"]]
    assert [each for each in words(picture(PAGES[name], {})) if each.endswith("?")] == titles


def test_a_line_is_drawn_with_its_name_and_last_value() -> None:
    answers: dict[tuple[str, str], Any] = {
        ("How big is each process?", "A"): [
            {
                "labels": {"instance": "w@1", "celery_worker_slot": "0<1"},
                "values": [[0.0, "1048576"], [60.0, "2097152"]],
            }
        ]
    }
    drawn = words(picture(PAGES["victorialogs/worker"], answers))
    assert "w@1 0<1: 2 MiB" in drawn
    assert "1 min" in drawn
