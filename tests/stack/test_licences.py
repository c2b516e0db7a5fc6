"""Nothing is linked into a program of ours that not everybody may build and use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack.collector_build import builder_binary, collector_binary
from tests.stack.go_build import TOOLS, TOOLS_BUILT, tool_binary
from tests.stack.licences import Licensed, Module, licences_of, linked, modules_of, refused
from tests.stack.report import Report

# Modules with another licence or none that is known, and why they may be used.
EXCUSED = {
    "github.com/opencontainers/go-digest": "CC-BY-SA-4.0 is of its documentation (LICENSE.docs); "
    "the code, which alone is linked, is under Apache-2.0 (LICENSE)",
}


def programs() -> dict[str, Path]:
    """Every Go program that is built here."""
    tools = {tool.name: tool_binary(tool) for tool in TOOLS_BUILT}
    return {"collector": collector_binary(), "ocb": builder_binary(), **tools}


def test_every_module_that_is_linked_has_a_licence_that_anybody_may_use(report: Report) -> None:
    found = {name: modules_of(program) for name, program in programs().items()}
    licensed = licences_of({module for modules in found.values() for module in modules})
    used = {licence for each in licensed for licence in each.ids}
    report.line(f"{len(licensed)} Go modules in {len(found)} programs: {', '.join(sorted(used))}")
    assert all(found.values())
    assert refused(licensed, EXCUSED) == {}
    assert set(EXCUSED) <= {each.module.path for each in licensed}


def test_every_directory_of_tools_is_built_and_so_looked_at() -> None:
    assert {path.name for path in TOOLS.iterdir()} == {tool.module for tool in TOOLS_BUILT}


MODULE = Module("example.com/it", "v1.0.0")


@pytest.mark.parametrize(
    ("licensed", "excused", "reason"),
    [
        (Licensed(MODULE, frozenset({"MIT", "MPL-2.0"})), {}, None),
        (Licensed(MODULE, frozenset({"GPL-3.0"})), {}, "not among those allowed: GPL-3.0"),
        (Licensed(MODULE, frozenset({"GPL-3.0"})), {MODULE.path: "why"}, None),
        (Licensed(MODULE, frozenset({"AGPL-3.0"})), {MODULE.path: "why"}, "never: AGPL-3.0"),
        (Licensed(MODULE, frozenset({"MIT", "SSPL-1.0"})), {}, "never: SSPL-1.0"),
        (Licensed(MODULE, frozenset({"BUSL-1.1"})), {}, "never: BUSL-1.1"),
        (Licensed(MODULE, frozenset()), {}, "no licence file"),
        (Licensed(MODULE, frozenset(), ("COPYING",)), {}, "no licence that is known in COPYING"),
    ],
)
def test_a_licence_is_refused_with_its_reason(
    licensed: Licensed, excused: dict[str, str], reason: str | None
) -> None:
    assert refused([licensed], excused) == ({str(MODULE): reason} if reason else {})


def test_a_replacement_is_looked_at_instead_of_what_it_replaces() -> None:
    listing = (
        "program: go1.26\n\tpath\tx\n\tmod\tours\t(devel)\t\n"
        "\tdep\texample.com/a\tv1.0.0\n\t=>\texample.com/fork\tv1.0.1\th1:x=\n"
        "\tdep\texample.com/b\tv2.0.0\th1:y=\n"
    )
    assert linked(listing) == {
        Module("example.com/fork", "v1.0.1"),
        Module("example.com/b", "v2.0.0"),
    }


def test_the_licence_of_a_module_is_read_from_its_text() -> None:
    module = Module("github.com/google/licensecheck", "v0.3.1")
    assert licences_of([module]) == [Licensed(module, frozenset({"BSD-3-Clause"}))]
