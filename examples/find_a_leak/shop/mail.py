"""Mail to customers: leaves nothing behind."""

from __future__ import annotations

from shop.celery import app


@app.task
def send(address: str) -> int:
    """The size of a message that is written and thrown away."""
    lines = [f"Dear {address}, this is line {n} of your invoice." for n in range(500)]
    return len("\n".join(lines))
