"""``python -m semconv`` says whether the registry is up to date; ``--write`` brings it there."""

from __future__ import annotations

import sys

from semconv.registry import HERE, generated


def main() -> int:
    """Compare or write; 1 where a file is not what the code says and was not written."""
    stale = 0
    for name, text in generated().items():
        path = HERE / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        if "--write" in sys.argv:
            HERE.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        else:
            stale = 1
            print(f"{name} is not what conventions.py says: make semconv", file=sys.stderr)
    return stale


if __name__ == "__main__":
    raise SystemExit(main())
