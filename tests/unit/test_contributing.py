"""The change that CONTRIBUTING.md shows is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_line_of_the_shown_change_is_in_a_file_that_is_named_before_it() -> None:
    shown = 0
    for words, diff in re.findall(
        r"^\d\. (.*?)\n+   ```diff\n(.*?)   ```", TEXT, re.DOTALL | re.MULTILINE
    ):
        files = [ROOT / path for path in re.findall(r"`([\w/]+\.py)`", words)]
        written = {line for file in files for line in file.read_text(encoding="utf-8").splitlines()}
        added = [line.removeprefix("   +") for line in diff.splitlines()]
        assert [line for line in added if line not in written] == []
        shown += len(added)
    assert shown == 10
