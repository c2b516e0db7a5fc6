"""A capture as an OTLP profile, decoded by opentelemetry-proto's own classes, and as it is sent."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.profiles.v1development import profiles_service_pb2 as service
from opentelemetry.proto.profiles.v1development import profiles_pb2
from opentelemetry.sdk.resources import Resource

from otel_celery_memory.captures.model import CaptureError
from otel_celery_memory.telemetry.profiles import profile_request, send_profile
from tests.processes import LOOPBACK, wait_until
from tests.unit.captures.examples import APP, CAPTURE, JSON, LEAK
from tests.unit.cli.conftest import command
from tests.unit.cli.running import Command
from tests.worker.harness import CONTROLLED, Broker, Start

__all__ = ["command"]
RESOURCE = Resource({"service.name": "shop", "replicas": 3, "canary": True})


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@contextmanager
def endpoint(status: int = 200, answer: bytes = b"") -> Iterator[tuple[str, list[Any]]]:
    """The URL of a receiver, and what it gets: path, headers and request."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = gzip.decompress(self.rfile.read(int(self.headers["Content-Length"])))
            request = service.ExportProfilesServiceRequest.FromString(body)
            got.append((self.path, self.headers, request))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}", got
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def plain(request: Any) -> dict[str, list[tuple[Any, ...]]]:
    """By kind and unit: each sample's value, task and stack, the leaf first."""
    tables = request.dictionary
    text = tables.string_table

    def place(number: int) -> tuple[str, str, int]:
        (line,) = tables.location_table[number].lines
        function = tables.function_table[line.function_index]
        return text[function.name_strindex], text[function.filename_strindex], line.line

    def attributes(numbers: Any) -> dict[str, str]:
        found = (tables.attribute_table[number] for number in numbers)
        return {text[each.key_strindex]: each.value.string_value for each in found}

    profiles = request.resource_profiles[0].scope_profiles[0].profiles
    return {
        f"{text[p.sample_type.type_strindex]}/{text[p.sample_type.unit_strindex]}": [
            (
                *sample.values,
                attributes(sample.attribute_indices),
                [place(at) for at in tables.stack_table[sample.stack_index].location_indices],
            )
            for sample in p.samples
        ]
        for p in profiles
    }


def test_a_capture_is_a_profile_of_bytes_and_one_of_blocks() -> None:
    found = plain(profile_request(CAPTURE, RESOURCE))
    of_leak = [
        ("json/encoder.py:200", JSON, 200),
        ("refresh", APP, 41),
        ("app/tasks.py:7", "/srv/shop/app/tasks.py", 7),
    ]
    refresh, send = {"celery.task.name": "feeds.refresh"}, {"celery.task.name": "mail.send"}
    cache, freed = ("refresh", APP, 50), ("app/mail.py:9", "/srv/shop/app/mail.py", 9)
    other = [("(other sites)", "", 0)]
    assert found == {
        "inuse_space/bytes": [
            (LEAK.size_bytes, refresh, of_leak),
            (2_048, refresh, [cache]),
            (-512, send, [freed]),
            (300, {}, other),
        ],
        "inuse_objects/count": [
            (LEAK.blocks, refresh, of_leak),
            (2, refresh, [cache]),
            (-1, send, [freed]),
            (3, {}, other),
        ],
    }


def test_it_says_whose_it_is_what_it_is_and_when_it_was_taken() -> None:
    request = profile_request(CAPTURE, RESOURCE)
    (of_resource,) = request.resource_profiles
    attributes = {each.key: each.value for each in of_resource.resource.attributes}
    assert attributes["service.name"].string_value == "shop"
    assert (attributes["replicas"].int_value, attributes["canary"].bool_value) == (3, True)
    (scope,) = of_resource.scope_profiles
    assert scope.scope.name == "otel_celery_memory"
    ids = {profile.profile_id for profile in scope.profiles}
    assert {len(each) for each in ids} == {16}
    assert len(ids) == 2
    for profile in scope.profiles:
        assert profile.time_unix_nano == CAPTURE.taken_ns
        assert profile.duration_nano == 30_500_000_000
    tables = request.dictionary
    named = {
        tables.string_table[each.key_strindex]: each.value.string_value
        for each in tables.attribute_table
    }
    assert named["celery.memory.snapshot.kind"] == CAPTURE.kind
    assert named["celery.memory.snapshot.reason"] == CAPTURE.reason
    assert named["profile.frame.type"] == "cpython"


def test_the_first_of_each_table_is_the_empty_one() -> None:
    tables = profile_request(CAPTURE, RESOURCE).dictionary
    assert tables.string_table[0] == ""
    for name in ("mapping", "location", "function", "link", "attribute", "stack"):
        first = getattr(tables, f"{name}_table")[0]
        assert first == type(first)()
    assert len(set(tables.string_table)) == len(tables.string_table)


def test_classes_of_an_older_format_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(profiles_pb2, "Stack")
    with pytest.raises(CaptureError, match=r"opentelemetry-proto 1\.40 or later"):
        profile_request(CAPTURE, RESOURCE)


def test_it_is_sent_with_the_headers_of_the_variables() -> None:
    environ = {"OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20secret"}
    with endpoint() as (url, got):
        assert send_profile(url + "/", CAPTURE, RESOURCE, environ) == (
            f"{url}/v1development/profiles"
        )
    ((path, headers, request),) = got
    assert (path, headers["Authorization"]) == ("/v1development/profiles", "Bearer secret")
    assert plain(request) == plain(profile_request(CAPTURE, RESOURCE))


def rejection() -> bytes:
    found = service.ExportProfilesServiceResponse()
    found.partial_success.rejected_profiles = 2
    found.partial_success.error_message = "too \x1b large"
    return bytes(found.SerializeToString())


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (404, b"", "answered 404: is its gate service.profilesSupport on, with a pipeline"),
        (401, b"", "answered 401"),
        (200, rejection(), r"rejected it: 'too \x1b large'"),
    ],
)
def test_what_is_not_taken_is_said_in_one_line(status: int, answer: bytes, said: str) -> None:
    with endpoint(status, answer) as (url, _), pytest.raises(CaptureError) as raised:
        send_profile(url, CAPTURE, RESOURCE, {})
    assert said in str(raised.value)


def test_an_endpoint_that_nobody_listens_at_is_said() -> None:
    with pytest.raises(CaptureError, match="refused"):
        send_profile("http://127.0.0.1:9", CAPTURE, RESOURCE, {})


def test_the_command_sends_what_it_shows(command: Command) -> None:
    with endpoint() as (url, got):
        file = command.file("a", CAPTURE)
        printed = command("show", file, "--task=feeds.*", "--otlp-profile", url)
    assert (printed.code, printed.err) == (0, f"sent to {url}/v1development/profiles\n")
    ((_, _, request),) = got
    assert [each[0] for each in plain(request)["inuse_space/bytes"]] == [LEAK.size_bytes, 2_048]
    attributes = request.resource_profiles[0].resource.attributes
    assert {each.key: each.value.string_value for each in attributes}["service.instance.id"] == (
        "celery@web-1"
    )


def test_the_command_says_what_it_could_not_send(command: Command) -> None:
    file = command.file("a", CAPTURE)
    printed = command("show", file, "--otlp-profile", "ftp://elsewhere")
    assert printed.code == 2
    assert "'ftp://elsewhere' is no URL such as http://localhost:4318" in printed.err
    printed = command("show", file, "--otlp-profile", "http://127.0.0.1:9")
    assert (printed.code, printed.out) == (2, "")
    assert "not sent: http://127.0.0.1:9/v1development/profiles: " in printed.err


def test_a_worker_sends_each_capture_if_the_setting_says_where(
    start: Start, broker: Broker
) -> None:
    with endpoint() as (url, got):
        environ = {
            **CONTROLLED,
            "OTEL_CELERY_MEMORY_TRACING": "always",
            "OTEL_CELERY_MEMORY_PROFILE_ENDPOINT": url,
        }
        with start(arguments=["--concurrency=1"], environ=environ) as worker:
            worker.run("keep", 1 << 20)
            assert "error" not in worker.command("memory_capture", amount="1")
            worker.run("keep", 1 << 20)
            wait_until("a profile was sent", lambda: got, 60)
            worker.stop()
    _, _, request = got[0]
    attributes = request.resource_profiles[0].resource.attributes
    named = {each.key: each.value.string_value for each in attributes}
    assert (named["service.name"], named["service.instance.id"]) == ("tests", "w@test")
    places = {stack[0][1] for _, _, stack in plain(request)["inuse_space/bytes"] if stack}
    assert any(path.endswith("tests/worker/app.py") for path in places)
