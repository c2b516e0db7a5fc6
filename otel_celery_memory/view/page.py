"""The page: for a browser that asks this machine, or as one file with its data inside.

Nothing that came from a worker is markup in either: the script sets text, and the data of a saved
page is JSON in which no tag can begin.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files

_ASSETS = files("otel_celery_memory.view") / "assets"
STYLES = ("vendor/uPlot.min.css", "view.css")
SCRIPTS = (
    *("vendor/preact.min.js", "vendor/uPlot.iife.min.js"),
    *("format.js", "parts.js", "captures.js", "view.js"),
)
"""In the order in which they run."""
_TYPES = {"js": "text/javascript", "css": "text/css"}

_NOTHING_ELSE = (
    "base-uri 'none'; form-action 'none'; img-src data:; require-trusted-types-for 'script'"
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    f"frame-ancestors 'none'; {_NOTHING_ELSE}"
)
"""The content security policy of the live page: its own files, and no text becomes markup."""


def asset(name: str) -> tuple[str, str] | None:
    """An asset's text and its type; ``None`` for any other name."""
    if name not in STYLES + SCRIPTS:
        return None
    return _text(name), _TYPES[name.rpartition(".")[2]]


def live_page() -> str:
    """The page that fetches its parts, and its data as they change."""
    styles = [f'<link rel="stylesheet" href="/assets/{name}">' for name in STYLES]
    scripts = [f'<script src="/assets/{name}"></script>' for name in SCRIPTS]
    return _page("\n".join(styles), "\n".join(scripts))


def saved_page(snapshot: Mapping[str, object]) -> str:
    """The page with everything inside: it fetches nothing, and its policy lets it fetch nothing."""
    styles, scripts = [_text(name) for name in STYLES], [_text(name) for name in SCRIPTS]
    policy = (
        f"default-src 'none'; script-src {_hashes(scripts)}; style-src {_hashes(styles)}; "
        f"{_NOTHING_ELSE}"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n' + "\n".join(
        f"<style>{style}</style>" for style in styles
    )
    data = f'<script type="application/json" id="snapshot">{_embedded(snapshot)}</script>\n'
    return _page(head, data + "\n".join(f"<script>{script}</script>" for script in scripts))


def _embedded(snapshot: Mapping[str, object]) -> str:
    """JSON that can stand between tags: without a character that ends or begins one."""
    text = json.dumps(snapshot, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _page(head: str, scripts: str) -> str:
    page = _text("page.html")
    return page.replace("{head}", head, 1).replace("{scripts}", scripts, 1)


def _text(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _hashes(texts: list[str]) -> str:
    digests = (hashlib.sha256(text.encode()).digest() for text in texts)
    return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
