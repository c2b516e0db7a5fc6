"""What a worker's contender has written and sent, read where it arrives."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import time
from typing import Any

from benchmarks.contenders import DIRECTORY, ENDPOINT, Contender
from benchmarks.pprof import Place, Profile, profiles_of_push, read_file
from demo.receiver import Receiver
from otel_celery_memory import conventions as c


def in_a_line(error: Exception) -> str:
    """What broke. Further lines are a worker's output, with places on one machine."""
    said = str(error).splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__


class PushReceiver:
    """Keeps what is posted to it, with the time; use as a context manager."""

    def __init__(self) -> None:
        self.requests: list[tuple[float, str, bytes]] = []
        kept = self.requests

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                kept.append((time(), self.path, body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """No access log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> PushReceiver:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Outputs:
    """Where one worker's contender writes and sends to."""

    directory: Path
    otlp: Receiver
    push: PushReceiver

    def environ(self, contender: Contender) -> dict[str, str]:
        """For its worker."""
        own = {
            key: value.replace(f"${DIRECTORY}", str(self.directory))
            for key, value in contender.environ.items()
        }
        return {
            DIRECTORY: str(self.directory),
            ENDPOINT: self.push.endpoint,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.otlp.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "NO_PROXY": "127.0.0.1",
            **own,
        }

    def notes(self) -> list[dict[str, Any]]:
        """What the processes of the worker wrote down, the oldest first."""
        lines = (
            line
            for path in sorted(self.directory.glob("notes.*.jsonl"))
            for line in path.read_text().splitlines()
        )
        return sorted((json.loads(line) for line in lines), key=lambda note: float(note["at"]))


def _of_ours(outputs: Outputs) -> dict[str, int]:
    received = outputs.otlp.received
    latest = received.latest(c.MEASURED.name)
    events = list(received.events)
    return {
        "tasks measured": int(sum(point.value for point in latest)),
        "points": len(received.points),
        "allocation sites": sum(event.name == c.ALLOCATION_SITE.name for event in events),
        "leak events": sum(event.name == "celery.memory.leak" for event in events),
    }


def _of_guides(outputs: Outputs) -> dict[str, int]:
    notes = outputs.notes()
    return {
        "snapshots compared": len(notes),
        "lines": sum(len(each["lines"]) for each in notes),
        "bytes traced": max((int(each["traced"]) for each in notes), default=0),
    }


def _of_opentelemetry(outputs: Outputs) -> dict[str, int]:
    received = outputs.otlp.received
    points = list(received.points)
    return {
        "spans": len(received.spans),
        "points": len(points),
        "points of process memory": sum(point.metric == "process.memory.usage" for point in points),
    }


def ddtrace_profiles(outputs: Outputs) -> list[Profile]:
    """What its processes wrote, the oldest first."""
    paths = outputs.directory.glob("ddtrace.*.pprof")
    return [read_file(path) for path in sorted(paths, key=lambda path: path.stat().st_mtime)]


def _of_ddtrace(outputs: Outputs) -> dict[str, int]:
    profiles = ddtrace_profiles(outputs)
    return {
        "files": len(profiles),
        "heap samples": sum(len(each.samples("heap-space")) for each in profiles),
        "bytes sampled": sum(each.total("alloc-space") for each in profiles),
    }


def pyroscope_profiles(outputs: Outputs) -> list[Profile]:
    """What was pushed, the oldest first."""
    return [
        profile
        for at, path, body in list(outputs.push.requests)
        if path.endswith("/Push")
        for profile in profiles_of_push(body, at)
    ]


def _of_pyroscope(outputs: Outputs) -> dict[str, int]:
    profiles = pyroscope_profiles(outputs)
    return {
        "pushes": len(outputs.push.requests),
        "samples in use": sum(len(each.samples("inuse_space")) for each in profiles),
        "bytes sampled": sum(each.total("alloc_space") for each in profiles),
    }


def memray_places(outputs: Outputs) -> list[tuple[tuple[Place, ...], int]]:
    """Stack, innermost place first, and bytes of what was alive when its trackers ended."""
    import memray

    found: list[tuple[tuple[Place, ...], int]] = []
    for path in outputs.directory.glob("memray.*.bin"):
        with memray.FileReader(path) as reader:
            for record in reader.get_leaked_allocation_records(merge_threads=True):
                stack = tuple((file, line, name) for name, file, line in record.stack_trace())
                found.append((stack, record.size))
    return found


def _of_memray(outputs: Outputs) -> dict[str, int]:
    places = memray_places(outputs)
    return {
        "files": len(list(outputs.directory.glob("memray.*.bin"))),
        "places with bytes in use": len(places),
        "bytes in use": sum(size for _, size in places),
    }


def _of_psutil(outputs: Outputs) -> dict[str, int]:
    last = {each["pid"]: each["grown"] for each in outputs.notes()}
    return {
        "tasks read": sum(runs for grown in last.values() for runs, _ in grown.values()),
        "names": len({name for grown in last.values() for name in grown}),
    }


_READERS: Mapping[str, Callable[[Outputs], dict[str, int]]] = {
    **dict.fromkeys(("default", "off", "always", "in_process"), _of_ours),
    **dict.fromkeys(("guides_1", "guides_10"), _of_guides),
    **dict.fromkeys(("otel", "otel_system"), _of_opentelemetry),
    "ddtrace": _of_ddtrace,
    "pyroscope": _of_pyroscope,
    "memray": _of_memray,
    "psutil": _of_psutil,
}


def collected(contender: Contender, outputs: Outputs) -> dict[str, int]:
    """How much of what it claims to collect arrived; of what collects nothing, nothing."""
    reader = _READERS.get(contender.name)
    return reader(outputs) if reader else {}
