"""Builds Go programs once and says where they are; builds are kept outside of the checkout.

`python -m tests.stack.go_build` builds all of tools/ and prints where they are, how long a build
took and how big it is. They lie in ``$XDG_CACHE_HOME/otel-celery-memory``: a cold build of all
takes a quarter of an hour on two cores.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ComponentError, require

TOOLS = Path(__file__).parents[2] / "tools"
BUILD_FLAGS = (
    "-mod=mod",  # our go.mod names the program only: let go add what it needs
    "-p=2",  # a large link or compile takes a gigabyte: leave room for what else runs here
    "-trimpath",
    "-buildvcs=false",  # the cache may lie in somebody's home under version control
    "-ldflags=-s -w",
)
BUILD_TIMEOUT_S = 2700.0
FETCH_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Tool:
    """A Go program of tools/``module``, by the path of its main package."""

    name: str
    module: str
    package: str

    def sources(self) -> list[Path]:
        """What we wrote of it."""
        return sorted(each for each in (TOOLS / self.module).rglob("*") if each.is_file())


PROMETHEUS = Tool("prometheus", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus")
PROMTOOL = Tool("promtool", "prometheus", "github.com/prometheus/prometheus/cmd/promtool")
VICTORIALOGS = Tool(
    "victorialogs", "victorialogs", "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"
)
JAEGER = Tool("jaeger", "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger")
COMPOSE_CHECK = Tool("compose-check", "compose-check", ".")
LICENCES = Tool("licences", "licences", ".")
TOOLS_BUILT = (LICENCES, COMPOSE_CHECK, VICTORIALOGS, JAEGER, PROMETHEUS, PROMTOOL)


def tool_binary(tool: Tool) -> Path:
    """The path of a program, built now unless a build of the same sources is in the cache."""
    go = require("go", "Go's toolchain, 1.26 or newer")
    texts = [path.read_text(encoding="utf-8") for path in tool.sources()]
    key = build_key(go, *texts, tool.package)
    return made_once(f"{tool.name}-{key}", lambda binary: _build(go, tool, binary))


def made_once(name: str, make: Callable[[Path], None], lock: str = "lock") -> Path:
    """The path of ``name`` in the cache, made now unless it is there; one at a time."""
    path = cache_directory() / name
    if not path.exists():
        with locked(cache_directory() / lock):
            if not path.exists():  # else somebody else made it while we waited
                make(path)
    return path


def _build(go: str, tool: Tool, binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=binary.parent) as directory:
        place = Path(directory)
        for source in tool.sources():
            copy = place / source.relative_to(TOOLS / tool.module)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(source.read_bytes())
        fetch(go, place, tool.package)
        built = place / "built"
        run([go, "build", *BUILD_FLAGS, "-o", str(built), tool.package], place)
        # Last, and atomic: the name in the cache never stands for half a build.
        built.replace(binary)


def fetch(go: str, directory: Path, package: str, timeout_s: float = FETCH_TIMEOUT_S) -> None:
    """Fetch the modules that a program is made of; `ComponentError` names what cannot be had.

    Apart from the build, which may take long for good reasons: a registry that does not answer may
    not. go itself names a module that is refused; of one that never comes it says only that it
    began to download it.
    """
    command = [go, "list", "-mod=mod", "-deps", "-f", "{{.ImportPath}}", package]
    try:
        run(command, directory, timeout_s)
    except subprocess.TimeoutExpired as error:
        said = error.stderr.decode() if isinstance(error.stderr, bytes) else error.stderr or ""
        begun = re.findall(r"^go: downloading (\S+) (\S+)$", said, re.MULTILINE)
        cache = Path(run([go, "env", "GOMODCACHE"], directory).strip()) / "cache" / "download"
        missing = [
            f"{module} {version}"
            for module, version in begun
            if not (cache / escaped(module) / "@v" / f"{escaped(version)}.zip").exists()
        ]
        raise ComponentError(
            f"not fetched within {timeout_s:.0f} s: {', '.join(missing) or package}"
        ) from None


def escaped(module: str) -> str:
    """A module's path or version as a path of the module cache: capitals are ``!`` and small."""
    return re.sub("[A-Z]", lambda capital: f"!{capital[0].lower()}", module)


def build_key(go: str, *recipe: str) -> str:
    """What tells builds of different recipes apart."""
    parts = (*recipe, *BUILD_FLAGS, run([go, "version"], Path.cwd()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def run(
    command: Sequence[str], directory: Path, timeout_s: float = BUILD_TIMEOUT_S, **more: str
) -> str:
    """What a command of the build prints; `ComponentError` with its complaint where it fails."""
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",  # no C compiler needed, and a binary that runs on any libc
        "GOWORK": "off",  # a workspace above the cache is not ours
        **more,
    }
    done = subprocess.run(
        ["nice", *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        raise ComponentError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def cache_directory() -> Path:
    """Where builds are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(base) / "otel-celery-memory"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One build at a time; the kernel lets go of the lock when its holder dies."""
    deadline = time.monotonic() + BUILD_TIMEOUT_S
    with path.open("w", encoding="utf-8") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ComponentError(f"{path} is held by another build") from None
                time.sleep(0.2)
        yield


if __name__ == "__main__":
    for each in TOOLS_BUILT:
        began_s = time.monotonic()
        path = tool_binary(each)
        took_s, size_mib = time.monotonic() - began_s, path.stat().st_size / (1 << 20)
        print(f"{each.name}: {took_s:.0f} s, {size_mib:.0f} MiB, {path}", file=sys.stderr)
