"""What `make demo` installs, and what it says meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from demo.installation import _READ_PROJECT, EXTRAS, ROOT, Progress, StepError, main

PIPS_OUTPUT = """\
print("Collecting celery<6,>=5.3")
print("  Downloading celery-5.7.0-py3-none-any.whl (490 kB)")
print("Collecting kombu[redis]>=5.3 (from celery)")
print("Installing collected packages: vine, kombu, celery")
"""


def test_it_needs_what_the_package_and_the_view_need_and_no_tools_of_developers() -> None:
    progress = Progress()
    code = _READ_PROJECT.format(extras=EXTRAS)
    needed = {line.split(">")[0] for line in progress.run("", [sys.executable, "-c", code])}
    assert {"celery", "opentelemetry-sdk", "psutil", "starlette", "uvicorn", "rich"} <= needed
    assert not {"pytest", "ruff", "mypy", "playwright", "numpy", "django"} & needed


def test_the_first_words_are_what_will_happen_and_then_comes_a_line_for_each_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "environment"
    (target / "bin").mkdir(parents=True)
    pip = target / "bin" / "python"
    pip.write_text(f"#!{sys.executable}\n{PIPS_OUTPUT}", encoding="utf-8")
    pip.chmod(0o755)
    monkeypatch.setattr(sys, "argv", ["installation.py", str(target)])
    monkeypatch.setattr(sys, "executable", "true")
    assert main() == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("The demo runs a Celery worker that leaks memory")
    assert [line.partition(" s  ")[2] for line in said if " s  " in line] == [
        *("an environment of its own …", "what it needs …", "unpacking 3 packages …"),
        *("packages …", "unpacking 3 packages …"),
    ]
    assert said[-1].startswith("Installed in ")


def test_while_a_step_says_nothing_its_time_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    Progress().run("a long step", [sys.executable, "-c", "import time; time.sleep(4.5)"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 2
    assert all(line.endswith("a long step …") for line in lines)


def test_a_step_that_fails_is_told_with_the_end_of_its_output() -> None:
    failing = "print('no such package'); raise SystemExit(3)"
    with pytest.raises(StepError, match=r"packages: .* ended with 3:\nno such package"):
        Progress().run("packages", [sys.executable, "-c", failing])


def test_where_nothing_can_be_installed_that_is_said_and_no_stamp_is_made(tmp_path: Path) -> None:
    file = tmp_path / "a file"
    file.touch()
    command = [sys.executable, str(ROOT / "demo" / "installation.py"), str(file / "below")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.startswith("The demo runs a Celery worker")
    assert "an environment of its own: " in done.stderr
    assert "Traceback" not in done.stderr.partition("\n")[0]


def test_an_interruption_ends_the_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = tmp_path / "pid"

    def interrupted(progress: Progress, line: str) -> None:
        said.write_text(line, encoding="utf-8")
        raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "_note", interrupted)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        Progress().run("a long step", [sys.executable, "-c", code])
    assert not psutil.pid_exists(int(said.read_text(encoding="utf-8")))
