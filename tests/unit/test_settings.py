"""Settings: a keyword wins over the environment, which wins over the default."""

from __future__ import annotations

import logging
from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest

from otel_celery_memory import environment_variables
from otel_celery_memory.settings import SettingError, Settings, unknown_variables

DEFAULTS = {
    "tracing": "budget",
    "overhead_budget": 0.01,
    "max_added_latency": 0.25,
    "peaks": "on",
    "frames": 1,
    "sites_interval": 60.0,
    "warm_up": 60.0,
    "sites_top": 10,
    "sites_include": (),
    "sites_exclude": (),
    "export_interval": 15.0,
    "delivery": "reporter",
    "remote_control": True,
    "capture_signal": False,
    "capture_directory": "",
    "profile_endpoint": "",
    "state_directory": "",
    "worker_event_interval": 0.0,
}

CHANGED: dict[str, Any] = {
    "tracing": "always",
    "overhead_budget": 0.5,
    "max_added_latency": 0.01,
    "peaks": "off",
    "frames": 25,
    "warm_up": 0.0,
    "sites_interval": 1.5,
    "sites_top": 100,
    "sites_include": ("*/app/*", "*/lib/*"),
    "sites_exclude": ("*/tests/*",),
    "export_interval": 0.1,
    "delivery": "inprocess",
    "remote_control": False,
    "capture_signal": True,
    "capture_directory": "/var/captures",
    "profile_endpoint": "https://collector:4318",
    "state_directory": "/var/lib/worker",
    "worker_event_interval": 30.0,
}

UNUSABLE: list[tuple[str, Any]] = [
    ("tracing", "sometimes"),
    ("tracing", "ALWAYS"),
    ("tracing", True),
    ("overhead_budget", -0.01),
    ("overhead_budget", 0),
    ("overhead_budget", 0.6),
    ("overhead_budget", "1%"),
    ("overhead_budget", float("nan")),
    ("overhead_budget", True),
    ("max_added_latency", 0),
    ("max_added_latency", -1),
    ("max_added_latency", 61),
    ("max_added_latency", float("inf")),
    ("peaks", "sometimes"),
    ("peaks", 1),
    ("frames", 1_000),
    ("frames", 0),
    ("frames", 26),
    ("frames", 2.0),
    ("frames", True),
    ("frames", "many"),
    ("warm_up", -1),
    ("warm_up", 3_601),
    ("warm_up", "soon"),
    ("sites_interval", 0.5),
    ("sites_interval", 86_401),
    ("sites_interval", float("nan")),
    ("sites_interval", float("inf")),
    ("sites_interval", "soon"),
    ("sites_interval", True),
    ("sites_top", 0),
    ("sites_top", 101),
    ("sites_include", 5),
    ("sites_include", ["*", 5]),
    ("sites_exclude", {"*": 1}),
    ("export_interval", 0),
    ("export_interval", [15]),
    ("delivery", "pigeon"),
    ("sites_include", ["*/a\0b"]),
    ("sites_exclude", "x" * 1_001),
    ("remote_control", "perhaps"),
    ("remote_control", 2),
    ("capture_signal", "SIGURG"),
    ("capture_directory", "captures"),
    ("capture_directory", "/a\0b"),
    ("capture_directory", 5),
    ("capture_directory", b"/captures"),
    ("profile_endpoint", "collector:4318"),
    ("profile_endpoint", "ftp://collector"),
    ("profile_endpoint", "http://"),
    ("state_directory", "var/lib/worker"),
    ("state_directory", 5),
    ("state_directory", "~/state"),
    ("worker_event_interval", -1),
    ("worker_event_interval", "soon"),
]


def values(settings: Settings) -> dict[str, Any]:
    """A setting's values by name."""
    return {item.name: getattr(settings, item.name) for item in fields(settings)}


def test_nothing_said_is_the_defaults() -> None:
    assert values(Settings.load({}, {})) == DEFAULTS


def test_every_setting_has_a_unit_its_bounds_and_a_meaning() -> None:
    for item in fields(Settings):
        assert set(item.metadata) == {"parse", "unit", "allowed", "meaning"}
        assert item.metadata["allowed"], item.name
        assert item.metadata["meaning"], item.name


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().frames = 3  # type: ignore[misc]


def test_keywords_are_taken() -> None:
    assert values(Settings.load(CHANGED, {})) == CHANGED


def test_the_environment_is_taken() -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACING": "always",
        "OTEL_CELERY_MEMORY_OVERHEAD_BUDGET": "0.5",
        "OTEL_CELERY_MEMORY_MAX_ADDED_LATENCY": "0.01",
        "OTEL_CELERY_MEMORY_PEAKS": "off",
        "OTEL_CELERY_MEMORY_FRAMES": " 25 ",
        "OTEL_CELERY_MEMORY_SITES_INTERVAL": "1.5",
        "OTEL_CELERY_MEMORY_WARM_UP": "0",
        "OTEL_CELERY_MEMORY_SITES_TOP": "100",
        "OTEL_CELERY_MEMORY_SITES_INCLUDE": "*/app/*, */lib/*,",
        "OTEL_CELERY_MEMORY_SITES_EXCLUDE": "*/tests/*",
        "OTEL_CELERY_MEMORY_EXPORT_INTERVAL": "0.1",
        "OTEL_CELERY_MEMORY_DELIVERY": "inprocess",
        "OTEL_CELERY_MEMORY_REMOTE_CONTROL": "False",
        "OTEL_CELERY_MEMORY_CAPTURE_SIGNAL": "1",
        "OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY": " /var/captures ",
        "OTEL_CELERY_MEMORY_STATE_DIRECTORY": "/var/lib/worker",
        "OTEL_CELERY_MEMORY_PROFILE_ENDPOINT": "https://collector:4318",
        "OTEL_CELERY_MEMORY_WORKER_EVENT_INTERVAL": "30",
    }
    assert values(Settings.load({}, environ)) == CHANGED


def test_a_keyword_wins_over_the_environment() -> None:
    environ = {"OTEL_CELERY_MEMORY_FRAMES": "7", "OTEL_CELERY_MEMORY_SITES_TOP": "3"}
    assert values(Settings.load({"frames": 2}, environ)) == {
        **DEFAULTS,
        "frames": 2,
        "sites_top": 3,
    }


def test_a_keyword_that_is_none_and_a_variable_that_is_empty_say_nothing() -> None:
    environ = {"OTEL_CELERY_MEMORY_FRAMES": "  "}
    assert values(Settings.load({"frames": None}, environ)) == DEFAULTS


def test_other_keywords_and_variables_are_not_ours() -> None:
    loaded = Settings.load({"colour": "red"}, {"OTEL_CELERY_MEMORY_COLOUR": "red"})
    assert values(loaded) == DEFAULTS


@pytest.mark.parametrize(("name", "value"), UNUSABLE)
def test_a_keyword_that_cannot_be_used_is_an_error_naming_name_value_and_what_is_allowed(
    name: str, value: Any
) -> None:
    meta = next(item.metadata for item in fields(Settings) if item.name == name)
    allowed = meta["allowed"] + (", in seconds" if meta["unit"] == "s" else "")
    if value == "1%":
        allowed += ": 0.01 for 1%"
    for strict in (True, False):
        with pytest.raises(SettingError) as caught:
            Settings.load({name: value}, {}, strict=strict)
        assert caught.value.name == name
        assert str(caught.value) == (
            f"otel_celery_memory: {name}={value!r} cannot be used: it must be {allowed}"
        )


def test_a_variable_that_cannot_be_used_is_the_same_error() -> None:
    with pytest.raises(SettingError) as caught:
        Settings.load({}, {"OTEL_CELERY_MEMORY_FRAMES": "0"})
    assert str(caught.value) == (
        "otel_celery_memory: OTEL_CELERY_MEMORY_FRAMES='0' cannot be used: "
        "it must be an integer from 1 to 25"
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_added_latency", "250ms", "a number from 0.01 to 60, in seconds: 0.25 for 250ms"),
        ("max_added_latency", " .5 s ", "a number from 0.01 to 60, in seconds: 0.5 for .5 s"),
        ("sites_interval", "1min", "a number from 1 to 86400, in seconds: 60 for 1min"),
        ("warm_up", "2 h", "a number from 0 to 3600, in seconds"),
        ("export_interval", "15 parsecs", "a number from 0.1 to 3600, in seconds"),
        ("overhead_budget", "2%", "a number from 0.0001 to 0.5: 0.02 for 2%"),
        ("frames", "3s", "an integer from 1 to 25"),
    ],
)
def test_a_value_with_a_unit_is_told_how_it_is_written(name: str, value: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.load({name: value}, {})
    assert str(caught.value).endswith(f" cannot be used: it must be {said}")


def test_the_usable_settings_have_defaults_for_those_that_are_not_and_say_which() -> None:
    environ = {"OTEL_CELERY_MEMORY_FRAMES": "0", "OTEL_CELERY_MEMORY_SITES_TOP": "3"}
    loaded, errors = Settings.load_usable({"tracing": "sometimes"}, environ)
    assert values(loaded) == {**DEFAULTS, "sites_top": 3}
    assert [error.name for error in errors] == ["tracing", "OTEL_CELERY_MEMORY_FRAMES"]


def test_variables_that_are_no_settings_are_found_with_the_nearest_that_is() -> None:
    environ = {
        "OTEL_CELERY_MEMORY_TRACE": "off",
        "OTEL_CELERY_MEMORY_COLOUR_OF_THE_SKY": "red",
        "OTEL_CELERY_MEMORY_FRAMES": "0",
        "OTEL_SERVICE_NAME": "shop",
    }
    assert unknown_variables(environ) == {
        "OTEL_CELERY_MEMORY_TRACE": "OTEL_CELERY_MEMORY_TRACING",
        "OTEL_CELERY_MEMORY_COLOUR_OF_THE_SKY": "",
    }


def test_where_nobody_could_catch_it_a_bad_variable_is_logged_and_the_default_used(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ = {"OTEL_CELERY_MEMORY_FRAMES": "0", "OTEL_CELERY_MEMORY_SITES_TOP": "3"}
    loaded = Settings.load({}, environ, strict=False)
    assert values(loaded) == {**DEFAULTS, "sites_top": 3}
    assert caplog.record_tuples == [
        (
            "otel_celery_memory.settings",
            logging.ERROR,
            "otel_celery_memory: OTEL_CELERY_MEMORY_FRAMES='0' cannot be used: "
            "it must be an integer from 1 to 25; the default 1 is used",
        )
    ]


@pytest.mark.parametrize("keywords", [{}, CHANGED, {"sites_include": ["*/a,b/*", "*/c/*"]}])
def test_what_is_handed_to_the_reporter_makes_the_same_settings_again(
    keywords: dict[str, Any],
) -> None:
    settings = Settings.load(keywords, {})
    assert values(Settings.load({}, settings.to_environ())) == values(settings)


def test_opentelemetry_s_command_line_knows_the_variable_of_each_setting() -> None:
    known = {name: text for name, text in vars(environment_variables).items() if "OTEL" in name}
    assert known == {name: name for name in Settings().to_environ()}


def test_an_option_in_a_file_is_before_the_environment_and_after_a_keyword() -> None:
    environ = {"OTEL_CELERY_MEMORY_FRAMES": "2", "OTEL_CELERY_MEMORY_SITES_TOP": "2"}
    declared = {"frames": 3, "sites_top": 3, "tracing": False, "peaks": "never"}
    settings, (error,) = Settings.load_usable({"sites_top": 4}, environ, declared, "otel.yaml")
    # A bare off in YAML is false.
    assert (settings.frames, settings.sites_top, settings.tracing) == (3, 4, "off")
    assert str(error) == (
        "otel_celery_memory: peaks in otel.yaml='never' cannot be used: it must be one of on, off"
    )
