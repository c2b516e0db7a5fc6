"""Whether the installed packages that we stand on go together, as their metadata say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib import metadata

_CHECKED = (
    "otel-celery-memory",
    "opentelemetry-instrumentation-celery",
    "opentelemetry-distro",
)


def installed_requirements(name: str) -> tuple[str, list[str]] | None:
    """Version and requirements of an installed package; ``None`` if it is not installed."""
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    return found.version, list(found.requires or ())


def conflicts(
    names: Sequence[str] = _CHECKED,
    installed: Callable[[str], tuple[str, list[str]] | None] = installed_requirements,
) -> Iterator[str]:
    """A line for each requirement of these packages, or of what they require, that is not met."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    seen, ahead = set(), list(names)
    while ahead:
        package = canonicalize_name(ahead.pop())
        found = installed(package)
        if found is None or package in seen:
            continue
        seen.add(package)
        for line in found[1]:
            try:
                wanted = Requirement(line)
            except InvalidRequirement:
                continue
            if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
                continue
            has = installed(wanted.name)
            if has is None:
                yield f"{package} {found[0]} needs {wanted.name}, which is not installed"
            elif not wanted.specifier.contains(has[0], prereleases=True):
                yield f"{package} {found[0]} needs {wanted.name}{wanted.specifier}, not {has[0]}"
            ahead.append(wanted.name)
