"""Pictures of the dashboards are drawn from answers, and are SVG."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from docs.pictures import picture
from docs.svg import COLOURS
from grafana.files import dashboards
from grafana.ids import FLEET_LOSSES_BY_TASK

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


def test_counts_are_stacked_bars() -> None:
    panel = next(
        each
        for each in PAGES["victorialogs/fleet"]["panels"]
        if each["id"] == FLEET_LOSSES_BY_TASK.number
    )
    answers: dict[tuple[str, str], Any] = {
        (panel["title"], "A"): [
            {"labels": {"celery.task.name": "a"}, "values": [[0.0, "1"], [30.0, "3"]]},
            {"labels": {"celery.task.name": "b"}, "values": [[30.0, "1"]]},
        ]
    }
    drawn = picture({"panels": [panel]}, answers)
    bars = [each for each in ElementTree.fromstring(drawn).iter(f"{SVG}rect") if _is_bar(each)]
    first, last, upon = (float(each.attrib["height"]) for each in bars)
    assert last == pytest.approx(3 * first, abs=0.2)
    assert upon == pytest.approx(first, abs=0.2)
    tops = [float(each.attrib["y"]) for each in bars]
    assert tops[2] == pytest.approx(tops[1] - upon, abs=0.2)
    assert words(drawn)[-2:] == ["a: 3", "b: 1"]


def _is_bar(box: ElementTree.Element) -> bool:
    return box.attrib["fill"] in COLOURS and float(box.attrib["height"]) > 3
