"""Runs a RabbitMQ node of its own, with its own port mapper, as the broker of a real worker."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.processes import LOOPBACK, free_ports, require, running

PACKAGE = "the package rabbitmq-server"
_DEBIAN = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's program on PATH changes to its own user and directories before it becomes this one."""


def rabbitmq_program() -> str | None:
    """The path of the server's own start script; ``None`` where there is none."""
    return _DEBIAN if Path(_DEBIAN).exists() else shutil.which("rabbitmq-server")


@contextmanager
def running_rabbitmq(directory: Path) -> Iterator[str]:
    """The URL of an empty RabbitMQ on a free port; all that it writes is in the directory."""
    program = rabbitmq_program() or require("rabbitmq-server", PACKAGE)
    port, distribution_port, mapper_port = free_ports(3)
    environ = {
        "PATH": os.environ["PATH"],
        # Where Erlang keeps the cookie that its nodes know each other by.
        "HOME": str(directory),
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": str(mapper_port),
        "RABBITMQ_NODENAME": f"test-{port}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(port),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_PID_FILE": str(directory / "pid"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "none"),
        "RABBITMQ_CONFIG_FILE": str(directory / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        # The start script becomes the server, instead of waiting for it: one pid to end.
        "RABBITMQ_ALLOW_INPUT": "1",
    }
    (directory / "plugins").write_text("[].\n")
    # Ours, so that it can be ended: Erlang would start one that stays.
    mapper = [require("epmd", PACKAGE), "-port", str(mapper_port)]
    with running("epmd", mapper, directory, environ) as epmd:
        epmd.wait_ready(lambda: _accepts(mapper_port))
        with running("rabbitmq", [program, "-noinput"], directory, environ) as server:
            server.wait_ready(lambda: _speaks_amqp(port))
            yield f"amqp://guest:guest@{LOOPBACK}:{port}//"


def _accepts(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _speaks_amqp(port: int) -> bool:
    """Whether it answers AMQP's header with the first method of a connection."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(16).startswith(b"\x01\x00\x00")
    except OSError:
        return False
