"""Builds the Collector of collector-config/builder.yaml once, and says where the binary is.

`python -m tests.stack.collector_build` prints its path as the last line. Builds are kept in
``$XDG_CACHE_HOME/otel-celery-memory``, outside the checkout: a cold one takes minutes.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ComponentError, require
from tests.stack.go_build import BUILD_FLAGS, build_key, cache_directory, fetch, made_once, run

MANIFEST = Path(__file__).parents[2] / "collector-config" / "builder.yaml"
OCB = "go.opentelemetry.io/collector/cmd/builder"
# Imported by the program that ocb writes, but by no component.
INSTALL_FLAGS = tuple(flag for flag in BUILD_FLAGS if not flag.startswith("-mod="))
CORE = ("go.opentelemetry.io/collector/otelcol", "go.opentelemetry.io/collector/service")


@dataclass(frozen=True)
class Manifest:
    """What the build needs to know of builder.yaml; ``release`` is of the Collector and of ocb."""

    text: str
    name: str
    release: str
    output_path: str
    modules: Mapping[str, str]
    replaces: tuple[str, ...]

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
        replaces = tuple(re.findall(r"^  - (\S+ v\S+ => \S+ v\S+)$", text, re.MULTILINE))
        return cls(text, field("name"), release, field("output_path"), modules, replaces)

    def go_mod(self) -> str:
        """The module of the program.

        ocb would write the same and run `go mod tidy`, which also fetches what the components'
        own tests import: a gigabyte more, and a failure wherever one of those cannot be had.
        """
        requires = "\n".join(f"\t{module} {version}" for module, version in self.modules.items())
        replaces = "".join(f"\nreplace {each}\n" for each in self.replaces)
        return f"module {self.name}\n\ngo 1.25\n\nrequire (\n{requires}\n)\n{replaces}"


def collector_binary() -> Path:
    """The path of the Collector, built now unless a build of this manifest is in the cache."""
    go = require("go", "Go's toolchain, 1.25 or newer")
    manifest = Manifest.read()
    key = build_key(go, manifest.text, manifest.go_mod())
    name = f"{manifest.name}-{manifest.release}-{key}"
    return made_once(name, lambda binary: _build(go, manifest, binary))


def builder_binary() -> Path:
    """The path of ocb, of the Collector's release, which writes the program to compile.

    Not by `made_once`: the Collector's build, which holds that lock, asks for it.
    """
    go = require("go", "Go's toolchain, 1.25 or newer")
    release = Manifest.read().release
    binary = cache_directory() / f"ocb-{release}-{build_key(go, OCB, release)}"
    if not binary.exists():
        with tempfile.TemporaryDirectory(prefix="build-", dir=binary.parent) as directory:
            place = Path(directory)
            run([go, "install", *INSTALL_FLAGS, f"{OCB}@v{release}"], place, GOBIN=directory)
            (place / "builder").replace(binary)
    return binary


def _build(go: str, manifest: Manifest, binary: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="build-", dir=binary.parent) as directory:
        place = Path(directory)
        manifest_copy = place / "builder.yaml"
        manifest_copy.write_text(manifest.text, encoding="utf-8")
        program = place / manifest.output_path
        ocb = [str(builder_binary()), f"--config={manifest_copy}"]
        run([*ocb, "--skip-compilation", "--skip-get-modules"], place)
        (program / "go.mod").write_text(manifest.go_mod(), encoding="utf-8")
        fetch(go, program, ".")
        built = program / manifest.name
        run([go, "build", *BUILD_FLAGS, "-o", str(built), "."], program)
        _check_versions(go, manifest, built)
        # Last, and atomic: the name in the cache never stands for half a build, or a wrong one.
        built.replace(binary)


def _check_versions(go: str, manifest: Manifest, built: Path) -> None:
    """Refuse a build in which a dependency's demand raised a version above its pin."""
    listing = run([go, "version", "-m", str(built)], built.parent)
    dependencies = dict(re.findall(r"^\tdep\t(\S+)\t(\S+)", listing, re.MULTILINE))
    for module, version in manifest.modules.items():
        if dependencies.get(module) != version:
            raise ComponentError(f"{module}: pinned {version}, built {dependencies.get(module)}")


if __name__ == "__main__":
    print("building the Collector, unless it is in the cache …", file=sys.stderr)
    print(collector_binary())
