"""What the gateway costs: MLflow through it, with TLS and log-in, against MLflow itself.

And against MLflow behind NGINX with TLS and nothing else, for what TLS and a second server cost.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

BARE = """
pid /tmp/nginx.pid;
worker_processes 2;
error_log stderr crit;
events {}
http {
  access_log off;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  client_max_body_size 0;
  proxy_http_version 1.1;
  proxy_request_buffering off;
  proxy_max_temp_file_size 0;
  upstream mlflow { server mlflow:5000; keepalive 32; }
  server {
    listen 8443 ssl;
    ssl_certificate /bare/tls.crt;
    ssl_certificate_key /bare/tls.key;
    location / {
      proxy_pass http://mlflow;
      proxy_set_header Host mlflow:5000;
      proxy_set_header Connection "";
    }
  }
}
"""
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


@contextmanager
def bare(name: str, directory: Path, port: int) -> Iterator[Way]:
    """Publish MLflow by NGINX with TLS alone, out of the gateway's own image."""
    own = directory / "bare"
    own.mkdir()
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    make += ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    make += ["-keyout", str(own / "tls.key"), "-out", str(own / "tls.crt")]
    subprocess.run(make, check=True, capture_output=True)
    (own / "nginx.conf").write_text(BARE)
    # whoever runs it in the container reads them
    own.chmod(0o755)
    for file in own.iterdir():
        file.chmod(0o644)
    form = ["docker", "inspect", "--format", "{{.Config.Image}}", f"{name}-gateway"]
    image = subprocess.run(form, capture_output=True, text=True, check=True).stdout.strip()
    container = f"{name}-bare"
    run = ["docker", "run", "--detach", f"--name={container}", f"--network={name}"]
    run += [f"--volume={own}:/bare:ro", f"--publish=127.0.0.1:{port}:8443", "--entrypoint=nginx"]
    run += [image, "-e", "stderr", "-c", "/bare/nginx.conf", "-g", "daemon off;"]
    subprocess.run(run, check=True, capture_output=True)
    context = ssl.create_default_context(cafile=str(own / "tls.crt"))
    try:
        time.sleep(2)
        yield Way(
            lambda: http.client.HTTPSConnection("localhost", port, context=context, timeout=600),
            "",
            {},
        )
    finally:
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", container], check=True, capture_output=True
        )


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


def latencies(ways_: Mapping[str, Way], requests: int) -> dict[str, float]:
    """Return the median milliseconds of a read by each way, asked in turn on open connections."""
    taken: dict[str, list[float]] = {name: [] for name in ways_}
    with ExitStack() as stack:
        connections = {name: stack.enter_context(opened(way)) for name, way in ways_.items()}
        for _ in range(requests):
            for name, way in ways_.items():
                began = time.perf_counter()
                way.get(connections[name], ASKED)
                taken[name].append((time.perf_counter() - began) * 1000)
    return {name: statistics.median(values) for name, values in taken.items()}


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
    name: str, inventory: Path, ports: tuple[int, int, int], directory: Path, requests: int = 400
) -> dict[str, dict[str, float]]:
    """Measure three ways in turn: MLflow's own port, the gateway's, and that of a bare NGINX.

    Args:
        name: the platform's.
        inventory: of that platform.
        ports: the gateway's, MLflow's own, and one that is free.
        directory: where files may be made.
        requests: reads by each way for the medians.

    Returns:
        for `ms` (milliseconds of a read), `rate` (reads a second, the median of three), `up` and
        `down` (seconds of a GiB, the best of three) a figure of each of `direct`, `gated`, `bare`.
    """
    gated_port, own, free = ports
    direct, gated = ways(name, inventory, gated_port, own)
    with bare(name, directory, free) as alone:
        known = {"direct": direct, "gated": gated, "bare": alone}
        latencies(known, 50)
        found = {"ms": latencies(known, requests)}
        # in turn, for a machine is not the same from one minute to the next
        rates = [{which: rate(way, 4, 4.0) for which, way in known.items()} for _ in range(3)]
        found["rate"] = {which: statistics.median(each[which] for each in rates) for which in known}
        took = [{which: transfer(way) for which, way in known.items()} for _ in range(3)]
    for index, kind in enumerate(("up", "down")):
        found[kind] = {which: min(each[which][index] for each in took) for which in known}
    return found


if __name__ == "__main__":
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        gated_, own_, free_ = map(int, sys.argv[3:])
        given = (sys.argv[1], Path(sys.argv[2]), (gated_, own_, free_), Path(place))
        print(json.dumps(measured(*given), indent=1))
