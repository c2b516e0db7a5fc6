"""The settings: one frozen dataclass, read from keywords of ``instrument()`` and the environment.

A keyword overrides an option in the file of ``OTEL_CONFIG_FILE``, which overrides
``OTEL_CELERY_MEMORY_<NAME>``, which overrides the default. The parsers here raise `ValueError` or
`TypeError` for a value that a setting may not have.
"""

from __future__ import annotations

import difflib
import fnmatch
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "OTEL_CELERY_MEMORY_"
TRACING_FLOOR_S = 0.6
"""CPU time that a slot may spend on tracing in any ten minutes, however little its tasks have used:
0.1 % of a core. A window over a few dozen small runs costs about so much, and names lines. Without
it, a worker that is idle most of the time would name its leaking line after hours."""


def choice(*allowed: str) -> Callable[[object], str]:
    """A parser of one of these words."""

    def parse(value: object) -> str:
        # YAML reads a bare off as false.
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else value
        if word in allowed:
            return str(word)
        raise ValueError

    return parse


def integer(low: int, high: int) -> Callable[[object], int]:
    """A parser of a whole number within these bounds."""

    def parse(value: object) -> int:
        if isinstance(value, (bool, float)):
            raise ValueError
        number = int(str(value))
        if not low <= number <= high:
            raise ValueError
        return number

    return parse


def number(low: float, high: float) -> Callable[[object], float]:
    """A parser of a number within these bounds."""

    def parse(value: object) -> float:
        if isinstance(value, bool):
            raise ValueError
        number = float(str(value))
        if not low <= number <= high:  # also refuses NaN
            raise ValueError
        return number

    return parse


def boolean(value: object) -> bool:
    """Parses true or false, in any case, or 1 or 0."""
    found = {"true": True, "1": True, "false": False, "0": False}.get(str(value).strip().lower())
    if found is None:
        raise ValueError
    return found


def directory(value: object) -> str:
    """Parses an absolute path, empty for none. Whether it is writable shows when it is used."""
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(path, str) or "\0" in path or not (path == "" or path.startswith("/")):
        raise ValueError
    return path


def http_url(value: object) -> str:
    """Parses a URL of HTTP with a host, empty for none."""
    text = str(value).strip()
    parts = urlsplit(text)
    if text and not (parts.scheme in ("http", "https") and parts.hostname):
        raise ValueError
    return text


def patterns(value: object) -> tuple[str, ...]:
    """Parses file patterns: a comma-separated string, or a sequence of strings."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)) or not all(isinstance(part, str) for part in parts):
        raise ValueError
    # A comma separates in sequences too: the reporter gets the patterns as one string.
    found = tuple(word.strip() for part in parts for word in part.split(",") if word.strip())
    for pattern in found:
        if "\0" in pattern or len(pattern) > 1_000:
            raise ValueError
        try:
            re.compile(fnmatch.translate(pattern))
        except re.error:
            raise ValueError from None
    return found


_TIMES_S = {"ms": 0.001, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3_600}
_WITH_UNIT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zA-Z]+|%)\s*")


class SettingError(ValueError):
    """A setting has an invalid value; the message gives its name, the value and what is allowed."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        super().__init__(f"otel_celery_memory: {name}={value!r} cannot be used: {allowed}")
        self.name = name
        self.default: object = None


def _setting(
    default: Any, parse: Callable[[object], Any], unit: str, allowed: str, meaning: str
) -> Any:
    metadata = {"parse": parse, "unit": unit, "allowed": allowed, "meaning": meaning}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The settings of a user, each with its unit, bounds and meaning in ``metadata``."""

    tracing: str = _setting(
        "budget",
        choice("budget", "always", "off"),
        "",
        "one of budget, always, off",
        "when `tracemalloc` runs; `budget` traces some runs of each task; `always` traces every "
        "task from process start and slows allocation-heavy tasks 4 to 40 times",
    )
    overhead_budget: float = _setting(
        0.01,
        number(0.0001, 0.5),
        "",
        "a number from 0.0001 to 0.5",
        "share of the tasks' CPU time that allocation tracing may cost in mode `budget`, or 0.6 s "
        "in ten minutes in each child if that is more",
    )
    max_added_latency: float = _setting(
        0.25,
        number(0.01, 60),
        "s",
        "a number from 0.01 to 60",
        "the most that allocation tracing in mode `budget` may add to one run",
    )
    peaks: str = _setting(
        "on",
        choice("on", "off"),
        "",
        "one of on, off",
        "whether the peak RSS of each run is measured: that resets the process's high-water mark, "
        "which a task may read as `ru_maxrss` or `VmHWM`",
    )
    frames: int = _setting(
        1, integer(1, 25), "frames", "an integer from 1 to 25", "stack depth of a traced site"
    )
    warm_up: float = _setting(
        60.0,
        number(0, 3_600),
        "s",
        "a number from 0 to 3600",
        "how long after a worker's start what its runs keep is told as warm-up, in which caches "
        "fill, and no site is said to grow",
    )
    sites_interval: float = _setting(
        60.0,
        number(1, 86_400),
        "s",
        "a number from 1 to 86400",
        "time between allocation site events",
    )
    sites_top: int = _setting(
        10, integer(1, 100), "sites", "an integer from 1 to 100", "sites reported at each interval"
    )
    sites_include: tuple[str, ...] = _setting(
        (),
        patterns,
        "",
        "comma-separated file patterns, such as */app/*",
        "files whose sites are reported; empty is all",
    )
    sites_exclude: tuple[str, ...] = _setting(
        (),
        patterns,
        "",
        "comma-separated file patterns, such as */site-packages/*",
        "files whose sites are not reported",
    )
    export_interval: float = _setting(
        15.0, number(0.1, 3_600), "s", "a number from 0.1 to 3600", "time between metric exports"
    )
    delivery: str = _setting(
        "reporter",
        choice("reporter", "inprocess"),
        "",
        "one of reporter, inprocess",
        "which process exports: one beside the worker, or the one that runs the tasks",
    )
    state_directory: str = _setting(
        "",
        directory,
        "",
        "an absolute path",
        "where the last known processes and tasks are saved; if worker and reporter are killed, "
        "the next start of the same node reports them; empty is nowhere",
    )

    remote_control: bool = _setting(
        True,
        boolean,
        "",
        "true or false",
        "whether `celery inspect memory` and `celery control memory_...` are answered",
    )
    worker_event_interval: float = _setting(
        0.0,
        number(0, 86_400),
        "s",
        "a number from 0 to 86400",
        "the least time between two events `worker-memory` for consumers of Celery's own events; 0 "
        "is none",
    )
    capture_signal: bool = _setting(
        False,
        boolean,
        "",
        "true or false",
        "whether SIGURG to the worker or a child begins a capture, if the broker is unreachable",
    )
    capture_directory: str = _setting(
        "",
        directory,
        "",
        "an absolute path",
        "where captures are written as files; empty is nowhere",
    )
    profile_endpoint: str = _setting(
        "",
        http_url,
        "",
        "a URL such as http://collector:4318",
        "where captures are sent as OTLP profiles, which are alpha; empty is nowhere",
    )

    @classmethod
    def load(
        cls, keywords: Mapping[str, object], environ: Mapping[str, str], *, strict: bool = True
    ) -> Settings:
        """The settings from keywords and environment.

        Raises `SettingError` for an invalid value. With ``strict=False``, as under
        auto-instrumentation, where nobody could catch it, an invalid value in the environment is
        logged and the default is used.
        """
        settings, errors = cls.load_usable(keywords, environ)
        for error in errors:
            if strict or not _is_ours(error.name):
                raise error
            logger.error("%s; the default %r is used", error, error.default)
        return settings

    @classmethod
    def load_usable(
        cls,
        keywords: Mapping[str, object],
        environ: Mapping[str, str],
        declared: Mapping[str, object] | None = None,
        file: str = "",
    ) -> tuple[Settings, tuple[SettingError, ...]]:
        """The settings with the default for each value that cannot be used, and these errors.

        ``declared`` are the options in ``file``.
        """
        values: dict[str, Any] = {}
        errors: list[SettingError] = []
        for item in fields(cls):
            name, value = item.name, keywords.get(item.name)
            if value is None and (value := (declared or {}).get(item.name)) is not None:
                name = f"{item.name} in {file}"
            if value is None:
                name = ENVIRONMENT_PREFIX + item.name.upper()
                value = environ.get(name, "").strip() or None
            if value is None:
                continue
            try:
                values[item.name] = item.metadata["parse"](value)
            except (TypeError, ValueError):
                error = SettingError(name, value, _allowed_text(value, item.metadata))
                error.default = item.default
                errors.append(error)
        return cls(**values), tuple(errors)

    def to_environ(self) -> dict[str, str]:
        """The environment variables from which `load` makes the same settings."""
        return {
            ENVIRONMENT_PREFIX + item.name.upper(): _text(getattr(self, item.name))
            for item in fields(self)
        }


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables with our prefix that are no setting, each with the nearest one, or empty."""
    known = [item.name.upper() for item in fields(Settings)]
    words = (name.removeprefix(ENVIRONMENT_PREFIX) for name in environ if _is_ours(name))
    return {
        ENVIRONMENT_PREFIX + word: "".join(
            ENVIRONMENT_PREFIX + near for near in difflib.get_close_matches(word, known, 1)
        )
        for word in sorted(words)
        if word not in known
    }


def _is_ours(variable: str) -> bool:
    return variable.startswith(ENVIRONMENT_PREFIX)


def _allowed_text(value: object, metadata: Mapping[str, Any]) -> str:
    """What is allowed: ``it must be a number from 0.01 to 60, in seconds: 0.25 for 250ms``."""
    in_seconds = metadata["unit"] == "s"
    text = f"it must be {metadata['allowed']}{', in seconds' if in_seconds else ''}"
    found = _WITH_UNIT.fullmatch(str(value))
    if found is None:
        return text
    number, unit = found.groups()
    factor = 0.01 if unit == "%" else _TIMES_S.get(unit.lower()) if in_seconds else None
    if factor is None:
        return text
    meant = f"{float(number) * factor:.10g}"
    try:
        metadata["parse"](meant)
    except (TypeError, ValueError):
        return text
    return f"{text}: {meant} for {str(value).strip()}"


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)
