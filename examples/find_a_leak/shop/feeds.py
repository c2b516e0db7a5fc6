"""Price lists of suppliers: what is new in each since the last refresh."""

from __future__ import annotations

from shop.celery import app

SEEN: dict[str, str] = {}
"""What each supplier sent last."""


def download(feed: str, number: int) -> str:
    """A price list of some 25 KB; a real shop has it from the network."""
    return "\n".join(f"{feed}, {number}, {n}: a kettle, a lamp" for n in range(700))


@app.task
def refresh(feed: str, number: int) -> int:
    """The number of lines that are new."""
    prices = download(feed, number)
    before = SEEN.get(feed, "")
    SEEN[f"{feed} {number}"] = prices
    return len(set(prices.splitlines()) - set(before.splitlines()))
