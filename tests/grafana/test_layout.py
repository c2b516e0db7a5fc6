"""Panels are laid out by the code: a new panel only needs a width."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grafana.files import dashboards
from grafana.layout import COLUMNS, Place, places

SIZES = st.lists(st.tuples(st.sampled_from([6, 8, 12, 24]), st.integers(4, 12)))


def test_panels_lie_side_by_side_and_a_row_begins_below_the_highest() -> None:
    assert places([(8, 9), (8, 5), (8, 7), (12, 8), (12, 8)]) == [
        Place(0, 0, 8, 9),
        Place(8, 0, 8, 5),
        Place(16, 0, 8, 7),
        Place(0, 9, 12, 8),
        Place(12, 9, 12, 8),
    ]


def test_a_panel_without_a_neighbour_has_the_whole_width() -> None:
    assert places([(12, 8), (24, 8), (12, 8)]) == [
        Place(0, 0, 24, 8),
        Place(0, 8, 24, 8),
        Place(0, 16, 24, 8),
    ]


@pytest.mark.parametrize("page", dashboards().values(), ids=lambda page: page["title"])
def test_a_dashboard_has_its_panels_in_these_places(page: dict[str, Any]) -> None:
    found = [each["gridPos"] for each in page["panels"]]
    laid = places([(each["w"], each["h"]) for each in found])
    assert [Place(each["x"], each["y"], each["w"], each["h"]) for each in found] == laid


def test_no_panels_need_no_rows() -> None:
    assert places([]) == []


@given(SIZES)
def test_panels_do_not_overlap_and_fill_every_row(sizes: list[tuple[int, int]]) -> None:
    laid = places(sizes)
    cells = [
        (x, y)
        for each in laid
        for x in range(each.x, each.x + each.width)
        for y in range(each.y, each.y + each.height)
    ]
    assert len(set(cells)) == len(cells)
    assert all(0 <= x < COLUMNS for x, _ in cells)
    for top in {each.y for each in laid}:
        assert sum(each.width for each in laid if each.y == top) == COLUMNS
