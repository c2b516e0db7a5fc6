"""What MkDocs does to pages of the site before it renders them.

Pages are written so that they also read well where the repository is browsed: links lead to files
of the repository. Here a link out of ``docs/site`` becomes the file's address in the project, or
the page that shows the file; and ``<!-- file: ../../CHANGELOG.md -->`` becomes that file's text.
A link to a file that is not there is a warning, which ``mkdocs build --strict`` fails for.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SITE = "docs/site"
_LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_FILE = re.compile(r"^<!-- file: (\S+) -->$", re.MULTILINE)
_FENCE = re.compile(r"^( *```.*?^ *```$)", re.MULTILINE | re.DOTALL)
# Below MkDocs' own logger, whose warnings `--strict` counts.
logger = logging.getLogger("mkdocs.hooks.links")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The text of a page with files included and links led to where they open."""
    source = f"{SITE}/{page.file.src_uri}"
    address = f"{config['extra']['project']}/blob/main"

    def missing(target: str) -> None:
        logger.warning("%s: there is no %s", source, target)

    return site_text(markdown, source, address, missing)


def site_text(markdown: str, source: str, address: str, missing: Callable[[str], None]) -> str:
    """The Markdown of a page for the site.

    `source` is its path in the repository, `address` that of the repository's files on the web.
    `missing` is called with each linked or included file that is not there.
    """
    shown_in = {_shown_file(path): path for path in (ROOT / SITE).rglob("*.md")}
    shown_in.pop("", None)
    pages = {name: path.relative_to(ROOT).as_posix() for name, path in shown_in.items()}

    def led(text: str, origin: str) -> str:
        def lead(found: re.Match[str]) -> str:
            before, target, anchor, after = found[1], found[2], found[3] or "", found[4]
            if ":" in target or target.startswith("/"):
                return found[0]
            path = normpath(f"{origin.rpartition('/')[0]}/{target}".lstrip("/"))
            if not (ROOT / path).exists():
                missing(path)
                return found[0]
            path = pages.get(path, path)
            if path.startswith(f"{SITE}/"):
                led_to = relpath(path, source.rpartition("/")[0])
            else:
                led_to = f"{address}/{path}"
            return f"{before}{led_to}{anchor}{after}"

        # Not in code.
        parts = _FENCE.split(text)
        return "".join(part if n % 2 else _LINK.sub(lead, part) for n, part in enumerate(parts))

    included = _FILE.search(markdown)
    if included is None:
        return led(markdown, source)
    path = normpath(f"{source.rpartition('/')[0]}/{included[1]}")
    if not (ROOT / path).is_file():
        missing(path)
        return markdown
    return led((ROOT / path).read_text(encoding="utf-8"), path)


def _shown_file(page: Path) -> str:
    """The file that a page shows, in the repository; empty if it shows none."""
    found = _FILE.search(page.read_text(encoding="utf-8"))
    if found is None:
        return ""
    return normpath(f"{page.parent.relative_to(ROOT).as_posix()}/{found[1]}")
