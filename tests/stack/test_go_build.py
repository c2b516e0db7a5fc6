"""A module that cannot be fetched fails the build at once, by its name."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.processes import LOOPBACK, ComponentError, require
from tests.stack.go_build import fetch

MODULE = "example.com/Nobody/has"


class _Refusing(BaseHTTPRequestHandler):
    """A registry that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@contextmanager
def refusing() -> Iterator[str]:
    with HTTPServer((LOOPBACK, 0), _Refusing) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent() -> Iterator[str]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield f"http://{LOOPBACK}:{server.getsockname()[1]}"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that wants the module, and a module cache with nothing in it."""
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setenv("GOFLAGS", "-modcacherw")
    monkeypatch.setenv("GONOSUMDB", "*")
    monkeypatch.setenv("NO_PROXY", LOOPBACK)
    place = tmp_path / "program"
    place.mkdir()
    (place / "go.mod").write_text(f"module here\n\ngo 1.21\n\nrequire {MODULE} v1.2.3\n")
    (place / "go.sum").write_text("")
    (place / "main.go").write_text(f'package main\n\nimport _ "{MODULE}"\n\nfunc main() {{}}\n')
    return place


def test_a_module_that_the_registry_does_not_have_is_named(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refusing() as registry:
        monkeypatch.setenv("GOPROXY", registry)
        with pytest.raises(ComponentError, match=f"{MODULE}@v1.2.3"):
            fetch(require("go", "Go's toolchain"), program, ".")


def test_a_module_that_never_comes_is_named_when_the_time_is_up(
    program: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with silent() as registry:
        monkeypatch.setenv("GOPROXY", registry)
        with pytest.raises(ComponentError, match=f"^not fetched within 3 s: {MODULE} v1.2.3$"):
            fetch(require("go", "Go's toolchain"), program, ".", timeout_s=3)
