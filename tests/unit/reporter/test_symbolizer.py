"""Short names for places in the code, and the functions they lie in."""

from __future__ import annotations

import os
import sysconfig
import tracemalloc
import warnings
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from otel_celery_memory.reporter import symbolizer
from otel_celery_memory.reporter.symbolizer import CodePlace, Symbolizer, default_roots, function_at

SOURCE = '''\
"""A module."""
LIMIT = 1

@decorator
def plain():
    return [
        x for x in range(3)
    ]

class Outer:
    attribute = list(range(9))

    async def method(self):
        def inner():
            return 1
        return inner

    class Nested:
        def deep(self): return 2

if LIMIT:
    def conditional():
        pass
'''
FUNCTIONS = {
    1: None,
    2: None,
    4: None,
    5: "plain",
    7: "plain",
    8: "plain",
    9: None,
    11: None,
    13: "Outer.method",
    14: "Outer.method.<locals>.inner",
    15: "Outer.method.<locals>.inner",
    16: "Outer.method",
    19: "Outer.Nested.deep",
    23: "conditional",
    99: None,
}


@pytest.fixture(autouse=True)
def nothing_remembered() -> Iterator[None]:
    yield
    function_at.cache_clear()
    symbolizer._functions.cache_clear()


@pytest.fixture
def module(tmp_path: Path) -> Path:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    return path


def test_a_line_lies_in_the_innermost_function_around_it(module: Path) -> None:
    assert {line: function_at(str(module), line) for line in FUNCTIONS} == FUNCTIONS


@pytest.mark.parametrize(
    "content", [b"def f(:\n", b"\x00\x01", b"\xff\xfe bad", b"(" * 5_000, b"", b"x = '\n"]
)
def test_a_file_that_is_no_python_has_no_functions(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.py"
    path.write_bytes(content)
    assert function_at(str(path), 1) is None


def test_a_file_that_is_not_there_or_far_too_large_has_no_functions(tmp_path: Path) -> None:
    large = tmp_path / "large.py"
    large.write_text("def f():\n    pass\n" + "#" * 2_000_000)
    paths = ["/nowhere/x.py", "<string>", "", "\0", str(tmp_path), str(large)]
    assert [function_at(path, 1) for path in paths] == [None] * len(paths)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    # A name comes from the traced process: reading a pipe of that name would wait for ever.
    path = tmp_path / "pipe.py"
    os.mkfifo(path)
    writer = Thread(target=lambda: path.write_text(SOURCE), daemon=True)
    writer.start()
    found = function_at(str(path), 5)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    writer.join(30)
    os.close(reader)
    assert found is None


def test_reading_a_source_that_python_would_warn_of_warns_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_text("def f():\n    return '\\d' is 1\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert function_at(str(path), 2) == "f"
    assert [str(warning.message) for warning in caught] == []


def test_a_place_is_named_by_its_path_below_the_first_root_that_holds_it(module: Path) -> None:
    names = Symbolizer([f"{module.parent}/"])
    assert names.describe(str(module), 5) == CodePlace("module.py:5", "plain")
    assert names.describe("/elsewhere/x.py", 3) == CodePlace("/elsewhere/x.py:3", None)
    assert names.describe("<string>", 3) == CodePlace("<string>:3", None)


def test_a_directory_whose_name_only_begins_like_a_root_is_not_below_it() -> None:
    names = Symbolizer(["/srv/app/"])
    assert names.describe("/srv/app2/x.py", 1).name == "/srv/app2/x.py:1"


def test_the_roots_are_here_site_packages_and_the_library_the_longest_first() -> None:
    roots = default_roots()
    paths = sysconfig.get_paths()
    expected = {str(Path.cwd()), paths["purelib"], paths["platlib"], paths["stdlib"]}
    assert {root.removesuffix("/") for root in roots} == expected
    assert [len(root) for root in roots] == sorted((len(root) for root in roots), reverse=True)
    assert all(root.endswith("/") for root in roots)


def test_by_default_the_standard_library_and_this_project_are_short() -> None:
    names = Symbolizer()
    assert names.describe(tracemalloc.__file__, 1).name == "tracemalloc.py:1"
    here = Path(__file__)
    assert names.describe(__file__, 1).name == f"{here.relative_to(Path.cwd())}:1"
