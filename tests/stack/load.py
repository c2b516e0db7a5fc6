"""Sends the requests of many synthetic workers, a bounded number of rounds."""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.stack.synthetic import SyntheticWorkers


@dataclass(frozen=True)
class Sent:
    """What was sent, in how long, and how much of it was answered otherwise than with 200."""

    requests: int
    points: int
    refused_requests: int
    bytes: int
    duration_s: float


def send_rounds(
    workers: SyntheticWorkers,
    nodes: Sequence[str],
    endpoints: Sequence[str],
    rounds: int,
    interval_s: float = 0,
) -> Sent:
    """Every node sends once a round, each always to the same endpoint; a round every interval."""
    connections = [
        http.client.HTTPConnection(urlsplit(each).netloc, timeout=300) for each in endpoints
    ]
    refused = size = 0
    began_s = time.monotonic()
    for number_of_round in range(rounds):
        time.sleep(max(0.0, began_s + number_of_round * interval_s - time.monotonic()))
        workers.advance()
        for number, node in enumerate(nodes):
            connection = connections[number % len(connections)]
            body = workers.request(node)
            headers = {"Content-Type": "application/x-protobuf"}
            connection.request("POST", "/v1/metrics", body, headers)
            response = connection.getresponse()
            response.read()
            refused += response.status != 200
            size += len(body)
    duration_s = time.monotonic() - began_s
    for connection in connections:
        connection.close()
    requests = rounds * len(nodes)
    return Sent(requests, requests * workers.points, refused, size, duration_s)
