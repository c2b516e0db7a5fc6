"""What `check` finds: each thing once, with what to do about it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from otel_celery_memory.cli import findings
from otel_celery_memory.cli.findings import why_unmatched, why_unusable
from otel_celery_memory.cli.versions import conflicts
from otel_celery_memory.probes.limits import Limits
from otel_celery_memory.settings import Settings


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("app/*", ("it is compared with whole paths, which begin with /", "write */app/*")),
        ("*/app/", ("it is compared with files, and ends as a directory", "write */app/*")),
        ("*/app", ("app is a directory's name, not a file's", "write */app/*")),
        ("/srv/gone/*.py", ("there is no /srv/gone here", "correct it")),
        ("/srv/app/*", None),
        ("/srv/ap*/x.py", None),
        ("*/feeds.py", None),
        ("*", None),
        ("<string>", None),
        ("[/]srv/*", None),
    ],
)
def test_a_pattern_that_can_match_no_file_is_told_why(
    pattern: str, said: tuple[str, str] | None
) -> None:
    assert why_unmatched(pattern, lambda path: path in ("/srv", "/srv/app")) == said


def test_a_pattern_that_is_included_and_excluded_is_found() -> None:
    settings = Settings(sites_include=("*/app/*",), sites_exclude=("*/app/*",))
    (found,) = findings.of_patterns(settings, lambda _: True)
    assert found.text == "*/app/* is in sites_include and in sites_exclude, which wins"


def test_a_directory_that_can_be_used_or_made_is_no_finding(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    for path in (tmp_path, tmp_path / "new"):
        for private in (True, False):
            assert why_unusable(path, private=private) is None
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_used_is_told_why(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    above = tmp_path / "gone"
    told = {
        "file": ("is not a directory", "name another one"),
        "link": ("is a symbolic link", "name what it leads to"),
        "open": ("can be written to by others", f"chmod 0700 {tmp_path}/open"),
        "gone/new": (f"is not there, and neither is {above}", f"mkdir -p {above}"),
    }
    assert {name: why_unusable(tmp_path / name, private=True) for name in told} == told
    assert why_unusable(tmp_path / "link", private=False) is None


def test_a_directory_of_another_user_is_told_whose_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert why_unusable(tmp_path, private=True) == (
        f"belongs to user {owner}, and this is {owner + 1}",
        f"chown it, or run this as user {owner}",
    )


@pytest.mark.parametrize("parent", [False, True])
def test_a_directory_in_which_this_user_may_not_write_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parent: bool
) -> None:
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    path = tmp_path / "new" if parent else tmp_path
    why = why_unusable(path, private=False)
    assert why is not None
    assert "by this user" in why[0]


def test_root_and_a_cgroup_without_a_limit_are_found_and_a_limit_is_not() -> None:
    limited = Limits(cgroup_bytes=1 << 30)
    assert list(findings.of_machine(limited, is_root=False)) == []
    (root,) = findings.of_machine(limited, is_root=True)
    assert "--uid" in root.text
    (no_limit,) = findings.of_machine(Limits(), is_root=False)
    assert no_limit.text.startswith("the memory cgroup has no limit")


PACKAGES = {
    "otel-celery-memory": ("0.1", ["opentelemetry-sdk>=1.38,<2", "gone>=1", "x; extra == 'dev'"]),
    "opentelemetry-sdk": ("1.45.2", ["opentelemetry-api==1.45.2", "not a requirement !"]),
    "opentelemetry-api": ("1.38.0", ["otel-celery-memory"]),
}


def test_packages_that_do_not_go_together_are_found_through_all_that_they_require() -> None:
    assert list(conflicts(["otel-celery-memory"], PACKAGES.get)) == [
        "otel-celery-memory 0.1 needs gone, which is not installed",
        "opentelemetry-sdk 1.45.2 needs opentelemetry-api==1.45.2, not 1.38.0",
    ]


def test_only_where_our_own_requirements_are_not_met_nothing_arrives() -> None:
    lines = list(conflicts(["otel-celery-memory"], PACKAGES.get))
    assert [each.grave for each in findings.of_versions(lines)] == [True, False]


def test_what_is_installed_here_goes_together() -> None:
    assert list(conflicts()) == []
