"""A certificate for the loopback, signed by itself, as long as a test run."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.processes import LOOPBACK, require


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate and its key; the certificate is its own authority."""

    certificate: Path
    key: Path


def made_certificate(directory: Path) -> Certificate:
    """A new one in ``directory``."""
    made = Certificate(directory / "tls.crt", directory / "tls.key")
    subprocess.run(
        [
            *(require("openssl", "the package openssl"), "req", "-x509", "-newkey", "ec"),
            *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
            *("-subj", f"/CN={LOOPBACK}", "-addext", f"subjectAltName=IP:{LOOPBACK}"),
            *("-keyout", str(made.key), "-out", str(made.certificate)),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return made
