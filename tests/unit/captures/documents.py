"""The JSON of the example capture, and files that say something else."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.unit.captures.examples import TAKEN_NS

DOCUMENT: dict[str, Any] = {
    "format": "otel_celery_memory.capture",
    "version": 1,
    "kind": "runs",
    "worker": "celery@web-1",
    "reason": "asked for by inspect",
    "taken_ns": TAKEN_NS,
    "duration_s": 30.5,
    "frames": 3,
    "tracing": "budget",
    "processes": [
        {"slot": "0", "pid": 311, "rss_bytes": 85_143_552},
        {"slot": "1", "pid": 312, "rss_bytes": None},
    ],
    "runs": {"feeds.refresh": 20, "mail.send": 4},
    "sites": [
        {
            "task": "feeds.refresh",
            "path": "/srv/shop/app/feeds.py",
            "line": 41,
            "function": "refresh",
            "name": "app/feeds.py:41",
            "stack": [
                ["/srv/shop/app/tasks.py", 7],
                ["/srv/shop/app/feeds.py", 41],
                ["/usr/lib/python3.11/json/encoder.py", 200],
            ],
            "size_bytes": 10_485_760,
            "blocks": 20_480,
        },
        {
            "task": "feeds.refresh",
            "path": "/srv/shop/app/feeds.py",
            "line": 50,
            "function": "refresh",
            "name": "app/feeds.py:50",
            "stack": [["/srv/shop/app/feeds.py", 50]],
            "size_bytes": 2_048,
            "blocks": 2,
        },
        {
            "task": "mail.send",
            "path": "/srv/shop/app/mail.py",
            "line": 9,
            "function": None,
            "name": "app/mail.py:9",
            "stack": [],
            "size_bytes": -512,
            "blocks": -1,
        },
    ],
    "other_bytes": 300,
    "other_blocks": 3,
}


def packed(document: object) -> bytes:
    return gzip.compress(json.dumps(document).encode(), mtime=0)


def changed(**values: Any) -> bytes:
    return packed({**DOCUMENT, **values})


def without(name: str) -> bytes:
    return packed({key: value for key, value in DOCUMENT.items() if key != name})


def site(**values: Any) -> bytes:
    return changed(sites=[{**DOCUMENT["sites"][0], **values}])
