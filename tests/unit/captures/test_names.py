"""Short names of files: the same on every machine, learned from the sites that have one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_celery_memory.captures.model import ShortNames, short_path
from tests.unit.captures.examples import FREED, LEAK


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/srv/shop/app/feeds.py", "app/feeds.py"),
        ("/srv/shop/.venv/lib/python3.12/site-packages/celery/app.py", "celery/app.py"),
        ("/usr/lib/python3/dist-packages/yaml/reader.py", "yaml/reader.py"),
        ("/usr/local/lib/python3.13/json/encoder.py", "json/encoder.py"),
        ("/opt/other.py", "/opt/other.py"),
        ("<string>", "<string>"),
        ("", ""),
    ],
)
def test_a_path_is_named_below_its_library_or_root(path: str, short: str) -> None:
    assert short_path(path, ("/srv/shop/",)) == short


def test_frames_are_named_as_the_sites_beside_them() -> None:
    names = ShortNames([LEAK, FREED])
    assert names.place("/srv/shop/app/tasks.py", 7) == "app/tasks.py:7"
    assert names.file("/srv/other/tasks.py") == "/srv/other/tasks.py"


@pytest.mark.parametrize("name", ["", ":41", "41", "elsewhere.py:41", LEAK.path, f"{LEAK.path}:41"])
def test_a_name_that_is_no_end_of_its_path_gives_no_root(name: str) -> None:
    names = ShortNames([replace(LEAK, name=name)])
    assert names.place(LEAK.path, 41) == f"{LEAK.path}:41"
