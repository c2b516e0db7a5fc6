"""Builds the Collector of collector-config/builder.yaml once, and says where the binary is.

`python -m tests.stack.collector_build` prints its path as the last line. Builds are kept in
``$XDG_CACHE_HOME/otel-celery-memory``, outside the checkout: a cold one takes minutes.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ComponentError, require

MANIFEST = Path(__file__).parents[2] / "collector-config" / "builder.yaml"
OCB = "go.opentelemetry.io/collector/cmd/builder"
# Imported by the program that ocb writes, but by no component.
CORE = ("go.opentelemetry.io/collector/otelcol", "go.opentelemetry.io/collector/service")
BUILD_FLAGS = (
    "-mod=mod",  # the generated go.mod names components only: let go add what these need
    "-p=2",  # a large link or compile takes a gigabyte: leave room for what else runs here
    "-trimpath",
    "-buildvcs=false",  # the cache may lie in somebody's home under version control
    "-ldflags=-s -w",
)
BUILD_TIMEOUT_S = 1800.0


@dataclass(frozen=True)
class Manifest:
    """What the build needs to know of builder.yaml; ``release`` is of the Collector and of ocb."""

    text: str
    name: str
    release: str
    output_path: str
    modules: Mapping[str, str]

    @classmethod
    def read(cls, path: Path = MANIFEST) -> Manifest:
        """Read by pattern: the file is ours and flat, and a YAML parser one dependency more."""
        text = path.read_text(encoding="utf-8")

        def field(name: str) -> str:
            found = re.search(rf"^  {name}: (\S+)$", text, re.MULTILINE)
            if found is None:
                raise ComponentError(f"{path.name} has no dist.{name}")
            return found[1]

        release = field("version")
        modules = dict(re.findall(r"^  - gomod: (\S+) (v\S+)$", text, re.MULTILINE))
        if len(modules) != text.count("gomod:"):
            raise ComponentError(f"{path.name}: each component is a line `- gomod: module vX.Y.Z`")
        modules.update(dict.fromkeys(CORE, f"v{release}"))
        return cls(text, field("name"), release, field("output_path"), modules)

    def go_mod(self) -> str:
        """The module of the program.

        ocb would write the same and run `go mod tidy`, which also fetches what the components'
        own tests import: a gigabyte more, and a failure wherever one of those cannot be had.
        """
        requires = "\n".join(f"\t{module} {version}" for module, version in self.modules.items())
        return f"module {self.name}\n\ngo 1.25\n\nrequire (\n{requires}\n)\n"


def collector_binary() -> Path:
    """The path of the Collector, built now unless a build of this manifest is in the cache."""
    go = require("go", "Go's toolchain, 1.25 or newer")
    manifest = Manifest.read()
    recipe = (manifest.text, manifest.go_mod(), *BUILD_FLAGS, _run([go, "version"], Path.cwd()))
    key = hashlib.sha256("\0".join(recipe).encode()).hexdigest()[:16]
    cache = _cache_directory()
    binary = cache / f"{manifest.name}-{manifest.release}-{key}"
    if not binary.exists():
        with _locked(cache / "lock"):
            if not binary.exists():  # else somebody else built it while we waited
                _build(go, manifest, binary)
    return binary


def _build(go: str, manifest: Manifest, binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=binary.parent) as directory:
        place = Path(directory)
        manifest_copy = place / "builder.yaml"
        manifest_copy.write_text(manifest.text, encoding="utf-8")
        program = place / manifest.output_path
        ocb = [go, "run", "-p=2", f"{OCB}@v{manifest.release}", f"--config={manifest_copy}"]
        _run([*ocb, "--skip-compilation", "--skip-get-modules"], place)
        (program / "go.mod").write_text(manifest.go_mod(), encoding="utf-8")
        built = program / manifest.name
        _run([go, "build", *BUILD_FLAGS, "-o", str(built), "."], program)
        _check_versions(go, manifest, built)
        # Last, and atomic: the name in the cache never stands for half a build, or a wrong one.
        built.replace(binary)


def _check_versions(go: str, manifest: Manifest, built: Path) -> None:
    """Refuse a build in which a dependency's demand raised a version above its pin."""
    listing = _run([go, "version", "-m", str(built)], built.parent)
    dependencies = dict(re.findall(r"^\tdep\t(\S+)\t(\S+)", listing, re.MULTILINE))
    for module, version in manifest.modules.items():
        if dependencies.get(module) != version:
            raise ComponentError(f"{module}: pinned {version}, built {dependencies.get(module)}")


def _run(command: Sequence[str], directory: Path) -> str:
    environment = {
        **os.environ,
        "CGO_ENABLED": "0",  # no C compiler needed, and a binary that runs on any libc
        "GOWORK": "off",  # a workspace above the cache is not ours
    }
    done = subprocess.run(
        ["nice", *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise ComponentError(f"{' '.join(command)}: exit {done.returncode}\n{done.stderr[-4000:]}")
    return done.stdout


def _cache_directory() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(base) / "otel-celery-memory"
    cache.mkdir(parents=True, exist_ok=True)
    return cache


@contextmanager
def _locked(path: Path) -> Iterator[None]:
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
    print("building the Collector, unless it is in the cache …", file=sys.stderr)
    print(collector_binary())
