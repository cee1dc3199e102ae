"""What the gateway costs: MLflow through it, with TLS and log-in, against MLflow itself."""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

GIB = 2**30
BLOCK = 2**20
ASKED = "/api/2.0/mlflow/experiments/get?experiment_id=0"
FILE = "/api/2.0/mlflow-artifacts/artifacts/0/bench/large.bin"


@dataclass(frozen=True)
class Way:
    """A way to MLflow: how to connect, what stands before a path, and what each request carries."""

    connect: Callable[[], http.client.HTTPConnection]
    prefix: str
    headers: dict[str, str]

    def get(self, connection: http.client.HTTPConnection, path: str) -> int:
        """Ask for a path, and return how many bytes came."""
        connection.request("GET", self.prefix + path, headers=self.headers)
        reply, found = connection.getresponse(), 0
        while data := reply.read(BLOCK):
            found += len(data)
        if reply.status != 200:
            raise SystemExit(f"{self.prefix}{path} is answered {reply.status}")
        return found

    def put(self, path: str, size: int) -> None:
        """Send as many bytes."""
        block = os.urandom(BLOCK)
        connection = self.connect()
        whole = (block for _ in range(size // BLOCK))
        headers = {**self.headers, "Content-Length": str(size)}
        connection.request("PUT", self.prefix + path, body=whole, headers=headers)
        if connection.getresponse().status != 200:
            raise SystemExit(f"{self.prefix}{path} is not taken")
        connection.close()


def address_of(container: str) -> str:
    """Return a container's address in the network of its platform."""
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    words = ["docker", "inspect", "--format", form, container]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def ways(name: str, inventory: Path, port: int, own: int) -> tuple[Way, Way]:
    """Return the way to the server itself and that through the gateway, each published."""
    secrets = inventory / ".secrets" / name
    context = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
    given = f"admin:{(secrets / 'admin_password').read_text().strip()}"
    coded = base64.b64encode(given.encode()).decode()
    return (
        Way(
            lambda: http.client.HTTPConnection("localhost", own, timeout=600),
            "",
            {"Host": "mlflow:5000"},
        ),
        Way(
            lambda: http.client.HTTPSConnection("localhost", port, context=context, timeout=600),
            "/mlflow",
            {"Authorization": f"Basic {coded}"},
        ),
    )


@contextmanager
def opened(way: Way) -> Iterator[http.client.HTTPConnection]:
    """Hold a connection."""
    connection = way.connect()
    try:
        yield connection
    finally:
        connection.close()


def latencies(direct: Way, gated: Way, requests: int) -> tuple[float, float]:
    """Return the median milliseconds of a read by each way, asked in turn on open connections."""
    taken: dict[int, list[float]] = {0: [], 1: []}
    with opened(direct) as one, opened(gated) as other:
        for _ in range(requests):
            for index, (way, connection) in enumerate(((direct, one), (gated, other))):
                began = time.perf_counter()
                way.get(connection, ASKED)
                taken[index].append((time.perf_counter() - began) * 1000)
    return statistics.median(taken[0]), statistics.median(taken[1])


def rate(way: Way, clients: int, seconds: float) -> float:
    """Return the reads a second of several clients at once."""
    until = time.perf_counter() + seconds

    def read(_: int) -> int:
        done = 0
        with opened(way) as connection:
            while time.perf_counter() < until:
                way.get(connection, ASKED)
                done += 1
        return done

    with ThreadPoolExecutor(clients) as pool:
        return sum(pool.map(read, range(clients))) / seconds


def transfer(way: Way) -> tuple[float, float]:
    """Return the seconds that an artifact of a GiB takes up and down."""
    began = time.perf_counter()
    way.put(FILE, GIB)
    sent = time.perf_counter()
    with opened(way) as connection:
        if way.get(connection, FILE) != GIB:
            raise SystemExit("the artifact did not come whole")
    return sent - began, time.perf_counter() - sent


def measured(
    name: str, inventory: Path, port: int, own: int, requests: int = 400
) -> dict[str, float]:
    """Measure both ways in turn, the gateway's port and MLflow's own.

    Returns:
        milliseconds (`direct_ms`, `gated_ms`), reads a second (`direct_rate`, `gated_rate`), and
        seconds of a GiB up and down (`direct_up`, ...), each the better of two.
    """
    direct, gated = ways(name, inventory, port, own)
    latencies(direct, gated, 50)
    found = dict(zip(("direct_ms", "gated_ms"), latencies(direct, gated, requests), strict=True))
    found["direct_rate"], found["gated_rate"] = (rate(way, 4, 5.0) for way in (direct, gated))
    for _ in range(2):
        for which, way in (("direct", direct), ("gated", gated)):
            for kind, seconds in zip(("up", "down"), transfer(way), strict=True):
                key = f"{which}_{kind}"
                found[key] = min(found.get(key, seconds), seconds)
    return found


if __name__ == "__main__":
    import sys

    print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])), indent=1))
