"""``python -m grafana`` checks that the generated files are up to date; ``--write`` writes them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from grafana.files import HERE, generated
from grafana.rules import GRAFANA, RUNBOOKS


def main() -> int:
    """Compares or writes the files; returns 1 if one is out of date and was not written."""
    parser = argparse.ArgumentParser(prog="python -m grafana", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the files")
    parser.add_argument("--runbooks", default=RUNBOOKS, help="where runbooks are served")
    parser.add_argument("--grafana", default=GRAFANA, help="where Grafana is, for links to pages")
    options = parser.parse_args()
    texts = generated(options.runbooks, options.grafana)
    stale = [path for path, text in texts.items() if _text(HERE / path) != text]
    for path in stale:
        if options.write:
            (HERE / path).parent.mkdir(parents=True, exist_ok=True)
            (HERE / path).write_text(texts[path], encoding="utf-8")
        else:
            print(f"{path} is out of date: make dashboards", file=sys.stderr)
    return 0 if options.write or not stale else 1


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    raise SystemExit(main())
