"""What would make nothing arrive, or the wrong thing: each finding once, with what to do about it.

Pure but for `of_directories`, which looks and changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from otel_celery_memory.destination import LOGS, METRICS, Destination, is_disabled
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.settings import SettingError, Settings, unknown_variables

_CAN_BEGIN = ("/", "*", "?", "[", "<")
"""What a pattern of files can begin with: their paths are absolute, or ``<string>``."""
_WILDCARDS = "*?["


@dataclass(frozen=True)
class Finding:
    """Something that a user should know, in one line, and what to do about it.

    ``grave`` if nothing, or not what the user asked for, would arrive.
    """

    text: str
    remedy: str
    grave: bool = False


def of_variables(
    environ: Mapping[str, str], errors: Iterable[SettingError], to: Iterable[Destination]
) -> Iterator[Finding]:
    """Of OpenTelemetry's variables, and of ours."""
    if is_disabled(environ):
        yield Finding("OTEL_SDK_DISABLED=true: nothing is measured", "unset it", grave=True)
    destinations = list(to)
    for line in dict.fromkeys(line for each in destinations for line in each.refused):
        yield Finding(line, "set it to what there is, or install it", grave=True)
    for destination in destinations:
        yield from _of_destination(destination)
    for error in errors:
        yield Finding(
            str(error).removeprefix("otel_celery_memory: "),
            "correct it: no worker starts with it (under opentelemetry-instrument, and in what is "
            "no worker, the default is used)",
            grave=True,
        )
    for name, nearest in unknown_variables(environ).items():
        listed = "opentelemetry-instrument --help lists them; unset it"
        remedy = f"did you mean {nearest}?" if nearest else listed
        yield Finding(f"{name} is no setting, and is ignored", remedy)


def of_config_file(error: Exception) -> Finding:
    """Of a file that ``OTEL_CONFIG_FILE`` names and that cannot be used."""
    return Finding(
        f"{error}: the OTEL_... variables are used instead",
        "correct it; OpenTelemetry reads it with pip install opentelemetry-configuration",
        grave=True,
    )


def of_declared_signals(signals: Collection[str]) -> Iterator[Finding]:
    """Of a file that has no exporter for metrics or for events."""
    for signal, section in ((METRICS, "meter_provider"), (LOGS, "logger_provider")):
        if signal not in signals:
            sent = "no metrics are" if signal == METRICS else "no events are"
            yield Finding(
                f"the file of OTEL_CONFIG_FILE has no {section} with an exporter that sends: {sent}"
                " sent",
                f"add a {section} to it, if you want them",
                grave=signal == METRICS,
            )


def _of_destination(destination: Destination) -> Iterator[Finding]:
    if destination.exporters:
        return
    if destination.signal == METRICS:
        text = "OTEL_METRICS_EXPORTER=none: no metrics are sent"
        yield Finding(text, "unset it, or set it to otlp", grave=True)
    if destination.signal == LOGS:
        yield Finding(
            "OTEL_LOGS_EXPORTER=none: no events are sent: no lines of code by task but in "
            "celery inspect memory and metrics, no task of a process that was killed",
            "unset it, or set it to otlp, if there is a store of logs",
        )


def of_versions(conflicts: Iterable[str]) -> Iterator[Finding]:
    """Of packages that do not go together. OpenTelemetry instruments nothing where ours do not."""
    for line in conflicts:
        remedy = "pip install --upgrade otel-celery-memory, and what is named"
        yield Finding(line, remedy, grave=line.startswith("otel-celery-memory "))


def of_patterns(settings: Settings, exists: Callable[[str], bool]) -> Iterator[Finding]:
    """Of ``sites_include`` and ``sites_exclude``."""
    for name in ("sites_include", "sites_exclude"):
        for pattern in getattr(settings, name):
            why = why_unmatched(pattern, exists)
            if why:
                yield Finding(f"{name}: {pattern} matches no file: {why[0]}", why[1])
    for pattern in settings.sites_include:
        if pattern in settings.sites_exclude:
            yield Finding(
                f"{pattern} is in sites_include and in sites_exclude, which wins",
                "take it out of one of them",
            )


def why_unmatched(pattern: str, exists: Callable[[str], bool]) -> tuple[str, str] | None:
    """Why a pattern cannot match a file's absolute path, and what to do; ``None`` if it can."""
    if not pattern.startswith(_CAN_BEGIN):
        return "it is compared with whole paths, which begin with /", f"write */{pattern}"
    if pattern.startswith("<"):
        return None
    if pattern.endswith("/"):
        return "it is compared with files, and ends as a directory", f"write {pattern}*"
    fixed = pattern[: min((pattern.find(c) for c in _WILDCARDS if c in pattern), default=None)]
    directory = fixed.rpartition("/")[0]
    if directory and not exists(directory):
        return f"there is no {directory} here", "correct it"
    last = pattern.rpartition("/")[2]
    if not any(c in last for c in _WILDCARDS) and "." not in last:
        return f"{last} is a directory's name, not a file's", f"write {pattern}/*"
    return None


def of_directories(settings: Settings) -> Iterator[Finding]:
    """Of ``capture_directory`` and ``state_directory``, as they are now for this user."""
    for name, kept in (("capture_directory", "captures"), ("state_directory", "the last state")):
        directory = getattr(settings, name)
        if directory and (why := why_unusable(Path(directory), private=name.startswith("c"))):
            yield Finding(f"{name}={directory} {why[0]}: {kept} cannot be written", why[1])


def why_unusable(  # noqa: PLR0911
    path: Path, *, private: bool
) -> tuple[str, str] | None:
    """Why files cannot be written to a directory, and what to do; ``None`` if they can.

    A missing one is made by the worker, but not its parents. A ``private`` one must belong to this
    user, and only its owner may write to it.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return _why_not_made(path)
    except OSError as error:
        return f"cannot be used ({error.strerror})", "name another one"
    if stat.S_ISLNK(found.st_mode) and private:
        return "is a symbolic link", "name what it leads to"
    if not path.is_dir():
        return "is not a directory", "name another one"
    if private and found.st_uid != os.geteuid():
        why = f"belongs to user {found.st_uid}, and this is {os.geteuid()}"
        return why, f"chown it, or run this as user {found.st_uid}"
    if private and found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written to by others", f"chmod 0700 {path}"
    can_write = os.access(path, os.W_OK | os.X_OK)
    return None if can_write else ("cannot be written to by this user", "name another one")


def _why_not_made(path: Path) -> tuple[str, str] | None:
    if not path.parent.is_dir():
        return f"is not there, and neither is {path.parent}", f"mkdir -p {path.parent}"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return "is not there, and cannot be made by this user", f"mkdir -m 0700 {path}"
    return None


def of_machine(limits: Limits, *, is_root: bool) -> Iterator[Finding]:
    """Of the machine's limits and of the user."""
    if is_root:
        yield Finding(
            "this is root: a worker that it starts with --uid has no peaks, USS and PSS, as Linux "
            "hides them from a process that has changed its user",
            "start the worker as that user from the beginning (User= of systemd, setpriv, su)",
        )
    if limits.cgroup_bytes is None:
        yield Finding(
            "the memory cgroup has no limit: pressure is told of the machine's memory, and a leak "
            "takes that of others",
            "set one (resources.limits.memory, docker run --memory, MemoryMax= of systemd)",
        )
