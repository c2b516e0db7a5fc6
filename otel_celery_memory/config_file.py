"""The file that ``OTEL_CONFIG_FILE`` names: OpenTelemetry's declarative configuration.

OpenTelemetry's own package reads it: ``opentelemetry-configuration``, from OpenTelemetry 1.45 on.
It loads much of the SDK, so a process that only runs tasks reads the file only if it may have
something for it: options of ours, or ``disabled``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

VARIABLE = "OTEL_CONFIG_FILE"
ENTRY_POINT = "celery_memory"
"""Under which ``instrumentation/development: python:`` of the file has our options."""
_PACKAGE = "opentelemetry.configuration"
_DISTRIBUTION, _LOWEST = "opentelemetry-configuration", Version("0.66b0")
"""The release before leaves out limits that a file may have."""


class ConfigFileError(ValueError):
    """The file cannot be used; the message says in one line which and why."""


def config_file(environ: Mapping[str, str]) -> str:
    """The file's path as the user wrote it; empty if there is none."""
    return environ.get(VARIABLE, "").strip()


def load(path: str) -> Any:
    """The file as OpenTelemetry's model of it. Raises `ConfigFileError`."""
    try:
        from opentelemetry.configuration import load_config_file
    except ImportError as error:
        why = f"{_DISTRIBUTION} is not installed, or does not go with this OpenTelemetry"
        raise unusable(path, f"{why} (1.45 or later is needed): {error}") from None
    installed = metadata.version(_DISTRIBUTION)
    if Version(installed) < _LOWEST:
        raise unusable(path, f"{_DISTRIBUTION} is {installed}, {_LOWEST} or later is needed")
    try:
        with _without_tracebacks():
            return load_config_file(path)
    except Exception as error:
        # A parser's, a schema's, or what the file's own text can bring about.
        raise unusable(path, error) from error


def unusable(path: str, why: object) -> ConfigFileError:
    """An error in one line."""
    return ConfigFileError(f"{VARIABLE}={path} cannot be used: {' '.join(str(why).split())}")


def own_options(environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Our options in the file, each by the name of a setting; ``None`` if it switches us off.

    They are empty if there is no file, or if it has none. Raises `ConfigFileError` if it may have
    some and cannot be used.
    """
    path = config_file(environ)
    if not path or not _may_concern_us(path):
        return {}
    model = load(path)
    if model.disabled:
        return None
    languages = model.instrumentation_development
    given = (languages.python if languages else None) or {}
    options = dict(given.get(ENTRY_POINT) or {})
    return options if options.pop("enabled", True) else None


def _may_concern_us(path: str) -> bool:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return True  # the reader of it says what is wrong
    return ENTRY_POINT in text or "disabled" in text


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Without what the reader logs, traceback and all, of what it raises as well."""
    log = logging.getLogger(f"{_PACKAGE}.file._loader")

    def warnings_only(record: logging.LogRecord) -> bool:
        return record.levelno < logging.ERROR

    log.addFilter(warnings_only)
    try:
        yield
    finally:
        log.removeFilter(warnings_only)
