"""The one error of captures: a line for people."""

from __future__ import annotations


class CaptureError(Exception):
    """A capture that cannot be read, kept or compared; the message is one line.

    What it quotes of a file is quoted by ``repr``, so that a terminal takes no orders from it.
    """
