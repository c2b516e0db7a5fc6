"""One combination: its environment, made once and kept, and the fast tests in it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from matrix.combinations import Combination
from matrix.results import FAILED, NOT_RUN, PASSED, Occasion, Result

ROOT = Path(__file__).resolve().parents[1]
FAST_TESTS = ("tests/unit", "tests/telemetry")
_INSTALL_TIMEOUT_S = 900
_TESTS_TIMEOUT_S = 1_200
_WRITTEN = (":!matrix/results.json", ":!docs/site/reference/versions.md")
_TOLD = ("celery", "opentelemetry-sdk")
_REASON_MAX = 200
_PLACE = re.compile(r"(?:\w+:/)?/[^\s'\"]+")
"""An address or an absolute path."""


def environments(environ: Mapping[str, str]) -> Path:
    """Where the environments are kept: outside of the checkout."""
    cache = environ.get("XDG_CACHE_HOME") or Path(environ.get("HOME", "/tmp"), ".cache")
    return Path(cache, "otel-celery-memory", "matrix")


def occasion() -> Occasion:
    """Today, and the commit that is checked out; raises where that cannot be asked."""
    today = datetime.now(timezone.utc).date().isoformat()
    commit = _git("rev-parse", "--short=12", "HEAD")
    # What an earlier part of the same run wrote is no change to what is tested.
    changed = _git("status", "--porcelain", "--", ".", *_WRITTEN)
    return Occasion(today, f"{commit} and changes" if changed else commit)


def _git(*words: str) -> str:
    told = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return told.stdout.strip()


def tried(
    combination: Combination, occasion: Occasion, kept: Path, *, fresh: bool = False
) -> Result:
    """What comes of a combination: passed, failed, or why it was not run."""
    # Another pyproject.toml may ask for other things; another checkout is installed elsewhere.
    key = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + os.fsencode(ROOT)).hexdigest()
    directory = kept / f"{combination.name}-{key[:12]}"
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    python = directory / "bin" / "python"
    made = directory / "made"
    if not made.exists():
        why = _install(combination, directory)
        if why is not None:
            shutil.rmtree(directory, ignore_errors=True)
            return Result.of(combination, occasion, versions={}, outcome=NOT_RUN, why=why)
        made.touch()
    versions = _versions(python)
    # What is skipped is not known to pass.
    options = ("-q", "-p", "no:cacheprovider", "--strict-skips")
    ran = _run([python, "-m", "pytest", *FAST_TESTS, *options], _TESTS_TIMEOUT_S)
    outcome, why = outcome_of(ran.returncode, ran.stdout)
    return Result.of(combination, occasion, versions=versions, outcome=outcome, why=why)


def outcome_of(code: int, told: str) -> tuple[str, str]:
    """(outcome, why it is not good) from how pytest ended and what it said."""
    if code == 0:
        return PASSED, ""
    bad = [line for line in told.splitlines() if line.startswith(("FAILED", "ERROR", "SKIPPED"))]
    named = "; ".join(line.split(" - ")[0] for line in bad[:5])
    return FAILED, named or reason_of(told)


def _install(combination: Combination, directory: Path) -> str | None:
    """Make the environment; why that cannot be, or ``None``."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    constraints = directory.parent / f"{combination.name}.txt"
    constraints.write_text("\n".join(combination.constraints()) + "\n")
    pip: list[str | Path] = [directory / "bin" / "python", "-m", "pip", "install", "--quiet"]
    commands: tuple[list[str | Path], ...] = (
        [combination.interpreter.program, "-m", "venv", directory],
        [*pip, "--editable", ".[test]", "--constraint", constraints],
    )
    for command in commands:
        ran = _run(command, _INSTALL_TIMEOUT_S)
        if ran.returncode:
            return reason_of(ran.stdout)
    return None


def reason_of(told: str) -> str:
    """The line of pip's that says why, without places of this machine; else its last one."""
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")]
    chosen = (errors or lines or ["no word of why"])[-1]
    return _PLACE.sub("...", chosen.removeprefix("ERROR:").strip())[:_REASON_MAX]


def _versions(python: Path) -> dict[str, str]:
    ask = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    told = _run([python, "-c", ask, *_TOLD], 60).stdout.split()
    return dict(zip(_TOLD, told, strict=False))


def _run(command: Sequence[str | Path], timeout_s: float) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "PYTHON"))
    }
    try:
        return subprocess.run(
            command,
            cwd=ROOT,
            env={**kept, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"not done within {timeout_s:.0f} s", "")
