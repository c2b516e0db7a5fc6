"""Where nothing may be skipped, a skip fails the run, with pytest-xdist and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PASSES = "def test_a():\n    pass\n"
SKIPS_ITSELF = "import pytest\ndef test_b():\n    pytest.skip('it lacks a b')\n"
SKIPS_A_FILE = "import pytest\npytest.skip('it lacks a c', allow_module_level=True)\n"


def ended(directory: Path, *options: str) -> tuple[int, str]:
    """How pytest ends that runs the tests of a directory with the options of ours, and says."""
    # Nothing of the run that this test is part of.
    outside = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-ra", "-p", "tests.conftest"),
            *("-p", "xdist", "-p", "no:cacheprovider", f"--rootdir={directory}"),
            *options,
            directory,
        ],
        cwd=ROOT,
        env={**outside, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("processes", ["0", "1"])
@pytest.mark.parametrize(
    ("skips", "reason"), [(SKIPS_ITSELF, "it lacks a b"), (SKIPS_A_FILE, "it lacks a c")]
)
def test_a_skip_fails_the_run_and_is_named(
    tmp_path: Path, processes: str, skips: str, reason: str
) -> None:
    (tmp_path / "test_passes.py").write_text(PASSES)
    (tmp_path / "test_skips.py").write_text(skips)
    code, told = ended(tmp_path, "--numprocesses", processes, "--strict-skips")
    assert code in (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED), told
    assert reason in told


@pytest.mark.parametrize("processes", ["0", "1"])
def test_what_skips_nothing_passes_and_a_skip_that_nobody_forbids_does(
    tmp_path: Path, processes: str
) -> None:
    (tmp_path / "test_passes.py").write_text(PASSES)
    code, told = ended(tmp_path, "--numprocesses", processes, "--strict-skips")
    assert code == 0, told
    (tmp_path / "test_skips.py").write_text(SKIPS_ITSELF)
    code, told = ended(tmp_path, "--numprocesses", processes)
    assert code == 0, told
