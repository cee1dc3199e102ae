"""Facts of a host: its containers and secrets, and what strangers are answered on it."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import re
import shutil
import socket
import stat
import subprocess
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from platform_verify.evidence import CannotRunError, Json, Reader, answer_to, gather

LABEL = "mlops.platform"
SOCKET = "/var/run/docker.sock"
LISTEN = "0A"
STARTING_SECONDS = 2.0
# a shorter word is a name, found anywhere by chance; the platform takes no shorter secret
SECRET_LEAST = 12
# host:port:database:user:password, where a backslash stands before a colon that is meant
PGPASS = re.compile(r"[^\s:=]+:(?:\*|[0-9]+):(?:(?:\\.|[^\\:])*:){2}((?:\\.|[^\\:])*)")
JOURNAL = "the journal"
LOG_FILES = ("/var/log/syslog", "/var/log/messages", "/var/log/auth.log")
# of each log of the host the newest part is searched, in blocks
LOG_LIMIT = 64 << 20
LOG_BLOCK = 1 << 20
LOG_OVERLAP = 1 << 13


class EngineConnection(http.client.HTTPConnection):
    """HTTP to the Docker engine's Unix socket."""

    def connect(self) -> None:
        """Connect to the socket instead of to a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(30)
        self.sock.connect(SOCKET)


def engine(url: str) -> bytes:
    """Return the engine's answer to GET `url`.

    Raises:
        CannotRunError: no engine answers, or this user may not ask it.
    """
    connection = EngineConnection("localhost")
    try:
        connection.request("GET", url)
        reply = connection.getresponse()
        body = reply.read()
    except (OSError, http.client.HTTPException) as error:
        raise CannotRunError(
            f"the Docker engine at {SOCKET} does not answer ({error}): start it with `make up`,"
            " or let this user ask it"
        ) from error
    finally:
        connection.close()
    if reply.status != http.client.OK:
        raise OSError(f"GET {url}: {reply.status} {body[:200].decode(errors='replace')}")
    return body


def processes() -> Iterator[Path]:
    """Give the directory of every process in /proc."""
    yield from Path("/proc").glob("[0-9]*")


def pid_namespace(process: Path) -> str:
    """Return the PID namespace of a process, or an empty string where it is gone or hidden."""
    try:
        return str((process / "ns" / "pid").readlink())
    except OSError:
        return ""


def command_line(process: Path) -> list[str]:
    """Return the words of a process's command line; none where it is gone."""
    with contextlib.suppress(OSError):
        return [
            word.decode(errors="replace")
            for word in (process / "cmdline").read_bytes().split(b"\0")
        ]
    return []


def effective_uid(process: Path) -> int:
    """Return the effective uid of a process (proc_pid_status(5)), -1 where it is gone."""
    with contextlib.suppress(OSError):
        for line in (process / "status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[2])
    return -1


def uids_in(space: str) -> list[int]:
    """List the effective uids of the processes of a PID namespace.

    What the engine starts in a container, a health check for one, is root's for some milliseconds
    until it has become the container's user: root counts where the same process is root a while on.
    """
    members = [one for one in processes() if space and pid_namespace(one) == space]
    uids = {one: effective_uid(one) for one in members}
    deadline = time.monotonic() + STARTING_SECONDS
    while 0 in uids.values() and time.monotonic() < deadline:
        time.sleep(STARTING_SECONDS / 20)
        uids |= {one: effective_uid(one) for one, uid in uids.items() if uid == 0}
    return sorted({*uids.values()} - {-1})


def socket_address(field: str) -> tuple[str, int]:
    """Read an address of /proc/net/tcp or tcp6: hexadecimal, each 32-bit word little-endian."""
    packed, _, port = field.partition(":")
    words = [bytes.fromhex(packed[at : at + 8])[::-1] for at in range(0, len(packed), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return socket.inet_ntop(family, b"".join(words)), int(port, 16)


def listeners(process: str) -> list[tuple[str, int]]:
    """List address and port of the TCP sockets that listen in a process's network namespace."""
    found = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{process}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTEN:
                    found.add(socket_address(fields[1]))
    return sorted(found)


def published(ports: Mapping[str, Any] | None) -> list[Json]:
    """List what an engine says it publishes of a container."""
    return [
        {
            "inside": int(inside.partition("/")[0]),
            "protocol": inside.partition("/")[2] or "tcp",
            "address": entry["HostIp"],
            "port": int(entry["HostPort"]),
        }
        for inside, entries in sorted((ports or {}).items())
        for entry in entries or []
    ]


def proxies(addresses: set[str]) -> list[Json]:
    """List what Docker's own proxies listen on for containers with these addresses."""
    found = []
    for process in processes():
        words = command_line(process)
        if words and words[0].endswith("docker-proxy"):
            given = dict(zip(words[1::2], words[2::2]))  # noqa: B905 - strict= is not in 3.9
            if given.get("-container-ip") in addresses:
                found.append(
                    {
                        "inside": int(given["-container-port"]),
                        "protocol": given.get("-proto", "tcp"),
                        "address": given["-host-ip"],
                        "port": int(given["-host-port"]),
                    }
                )
    return sorted(found, key=lambda row: (row["port"], row["address"]))


def container(raw: Mapping[str, Any]) -> Json:
    """Tell of one container what a person could feel, from its inspection and from /proc."""
    state, config, host = raw["State"], raw["Config"], raw["HostConfig"]
    networks = (raw["NetworkSettings"].get("Networks") or {}).values()
    addresses = {network["IPAddress"] for network in networks if network.get("IPAddress")}
    inside: list[tuple[str, int]] = []
    uids: list[int] = []
    if state["Pid"]:
        uids = uids_in(pid_namespace(Path(f"/proc/{state['Pid']}")))
        inside = listeners(str(state["Pid"]))
    return {
        "name": raw["Name"].lstrip("/"),
        "image": raw["Image"],
        "state": state["Status"],
        "health": (state.get("Health") or {}).get("Status", "none"),
        "said": " ".join(
            ((state.get("Health") or {}).get("Log") or [{}])[-1].get("Output", "").split()
        )[-200:],
        "exit_code": state["ExitCode"],
        "out_of_memory": state["OOMKilled"],
        "user": config["User"],
        "uids": uids,
        "memory": host["Memory"],
        "swap": host["MemorySwap"],
        "pids": host["PidsLimit"] or 0,
        "log_limit": (host["LogConfig"].get("Config") or {}).get("max-size", ""),
        "read_only": host["ReadonlyRootfs"],
        "privileged": host["Privileged"],
        "cap_add": host["CapAdd"] or [],
        "cap_drop": host["CapDrop"] or [],
        "security": host["SecurityOpt"] or [],
        "namespaces": [
            mode
            for mode in (host["NetworkMode"], host["PidMode"], host["IpcMode"])
            if mode == "host"
        ],
        "mounts": [mount.get("Source", "") for mount in raw["Mounts"]],
        "address": min(addresses, default=""),
        "ports": published(raw["NetworkSettings"]["Ports"]),
        "proxies": proxies(addresses),
        "listeners": inside,
    }


def secret_values(text: str) -> list[str]:
    """Take from a secret file what must stay secret.

    An address gives its password only, as it is written and as it is meant, a password file of
    PostgreSQL the last field of each line, an INI file and JSON the values of keys that say they
    are secret, a key a line of its private half, anything else is secret as a whole.
    """
    text = text.strip()
    with contextlib.suppress(ValueError):
        if isinstance(told := json.loads(text), (dict, list)):
            return [value for value in secrets_in(told) if len(value) >= SECRET_LEAST]
    if text.startswith("-----BEGIN"):
        lines = [line for line in text.splitlines() if not line.startswith("-----")]
        # elsewhere in it is the public half, which a certificate or a .pub tells too
        private = lines if "OPENSSH" in text[:40] else lines[: (len(lines) + 1) // 2]
        found = [line for line in private if len(line) >= SECRET_LEAST][-1:]
    elif all(matched := [PGPASS.fullmatch(line) for line in text.splitlines() or [text]]):
        fields = [match[1] for match in matched if match]
        found = [form for field in fields for form in (field, re.sub(r"\\(.)", r"\1", field))]
    elif "\n" in text:
        pairs = (line.partition("=") for line in text.splitlines())
        found = [value.strip() for key, _, value in pairs if is_secret(key)]
    elif "://" in text:
        written = urllib.parse.urlsplit(text).password or ""
        found = [written, urllib.parse.unquote(written)]
    else:
        found = [text]
    return [value for value in dict.fromkeys(found) if len(value) >= SECRET_LEAST]


def is_secret(key: str) -> bool:
    """Tell whether a key says that its value is secret."""
    return any(word in key.lower() for word in ("secret", "password", "token"))


def secrets_in(told: Any) -> list[str]:  # noqa: ANN401 - whatever JSON that is
    """List the values of keys that say they are secret."""
    if isinstance(told, list):
        return [value for one in told for value in secrets_in(one)]
    if not isinstance(told, dict):
        return []
    own = [str(value) for key, value in told.items() if is_secret(key) and isinstance(value, str)]
    return own + [value for one in told.values() for value in secrets_in(one)]


def blocks(log: IO[bytes]) -> Iterator[bytes]:
    """Give a log in blocks that overlap, so that no border cuts a secret in two."""
    end = b""
    for _ in range(LOG_LIMIT // LOG_BLOCK):
        block = log.read(LOG_BLOCK)
        if not block:
            return
        yield end + block
        end = block[-LOG_OVERLAP:]


def host_logs() -> Iterator[tuple[str, bytes]]:
    """Give the newest part of the host's own logs that this user may read."""
    for name in LOG_FILES:
        with contextlib.suppress(OSError), Path(name).open("rb") as log:
            log.seek(max(0, Path(name).stat().st_size - LOG_LIMIT))
            for block in blocks(log):
                yield name, block
    if program := shutil.which("journalctl"):
        newest = ["--boot", "--reverse", "--all", "--output=cat", "--quiet"]
        with subprocess.Popen(  # noqa: S603 - words written in this file
            [program, *newest], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as reading:
            for block in blocks(reading.stdout or io.BytesIO()):
                yield JOURNAL, block
            reading.kill()  # the rest is older


def hiding_places(
    directory: Path, inspected: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, bytes]]:
    """Give each place that no secret may be in: its name and its content."""
    for raw in inspected:
        name = raw["Name"].lstrip("/")
        yield f"docker inspect {name}", json.dumps(raw, ensure_ascii=False).encode()
        yield f"docker inspect of the image of {name}", engine(f"/images/{raw['Image']}/json")
        yield f"docker logs {name}", engine(f"/containers/{raw['Id']}/logs?stdout=1&stderr=1")
    for process in processes():
        words = command_line(process)
        yield (
            f"the command line of process {process.name} ({words[0] if words else ''})",
            "\0".join(words).encode(),
        )
    for path in sorted(directory.rglob("*")):
        if path.is_file() and "secrets" not in path.relative_to(directory).parts:
            yield str(path), path.read_bytes()
    yield from host_logs()


def secrets(directory: Path, inspected: Sequence[Mapping[str, Any]]) -> Json:
    """Tell who owns the secret files below `directory`, and where else their content is found."""
    files: list[Json] = []
    wanted: dict[str, str] = {}
    for path in sorted(directory.glob("services/*/secrets/*")):
        about = path.stat()
        name = f"{path.parts[-3]}/{path.name}"
        files.append(
            {"name": name, "mode": f"{stat.S_IMODE(about.st_mode):04o}", "uid": about.st_uid}
        )
        for value in secret_values(path.read_text()):
            wanted[value] = name
    spelled = {
        spelling: name
        for value, name in wanted.items()
        for spelling in (value.encode(), json.dumps(value)[1:-1].encode())
    }
    found, places = set(), set()
    for place, content in hiding_places(directory, inspected):
        places.add(place)
        found |= {f"{name} in {place}" for value, name in spelled.items() if value in content}
    return {
        "files": files,
        "looked_for": len(wanted),
        "found": sorted(found),
        "logs": sorted(places & {*LOG_FILES, JOURNAL}),
    }


def inspect_all(platform: str) -> list[Json]:
    """Inspect every container that carries the platform's label."""
    wanted = urllib.parse.quote(json.dumps({"label": [f"{LABEL}={platform}"]}))
    rows = json.loads(engine(f"/containers/json?all=1&filters={wanted}"))
    return [json.loads(engine(f"/containers/{row['Id']}/json")) for row in rows]


def of_host(given: Mapping[str, Any]) -> Json:
    """Read a host: `platform` and `directory` say whose containers and secrets."""
    inspected = inspect_all(given["platform"])
    return gather(
        {
            "containers": lambda: [container(raw) for raw in inspected],
            "secrets": lambda: secrets(Path(given["directory"]), inspected),
        }
    )


def of_strangers(given: Mapping[str, Any]) -> Json:
    """Read what `requests` are answered from the host."""
    return gather({"answers": lambda: [answer_to(request) for request in given["requests"]]})


AT_ONCE: dict[str, Reader] = {"host": of_host}
ON_REQUEST: dict[str, Reader] = {"strangers": of_strangers}
