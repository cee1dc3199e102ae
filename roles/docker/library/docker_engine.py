"""Start the Docker engine where it does not answer, and tell what the host is and runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_engine
short_description: Start the Docker engine and gather what the platform must know of the host
description:
  - One call that reaches the host for every fact the platform decides on; no other call has to.
  - Where an engine is installed and does not answer it is started, by systemd where that is PID 1,
    else as a process of its own. Check mode starts nothing.
  - A pid file left by a killed daemon is removed when its process is no longer a C(dockerd).
  - The directory of each Compose project whose containers carry the label C(mlops.platform) is told
    by a digest of its files, so whoever wrote them can tell from afar that they are as written.
options:
  start: {description: Start an installed engine that does not answer., type: bool, default: true}
  wait: {description: Seconds to wait for a started engine to answer., type: int, default: 60}
  socket: {description: The engine's socket., type: path, default: /var/run/docker.sock}
  log:
    description: Where a C(dockerd) started without systemd writes its log.
    type: path
    default: /var/log/dockerd.log
"""

import contextlib
import hashlib
import http.client
import ipaddress
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ansible.module_utils.docker_module import QuietModule

# state of a socket that waits for whoever comes, by the protocol (proc_net_tcp(5))
LISTEN = {"tcp": "0A", "udp": "07"}
LABEL = "mlops.platform"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
ANSWER_SECONDS = 20
PLUGINS = (
    Path.home() / ".docker/cli-plugins",
    Path("/usr/local/lib/docker/cli-plugins"),
    Path("/usr/local/libexec/docker/cli-plugins"),
    Path("/usr/lib/docker/cli-plugins"),
    Path("/usr/libexec/docker/cli-plugins"),
)


def ask(path: str, url: str) -> Any:  # noqa: ANN401 - JSON of any shape
    """Return the engine's JSON answer to GET `url`; raises OSError where none answers."""
    connection = http.client.HTTPConnection("localhost")
    with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as wire:
        wire.settimeout(ANSWER_SECONDS)
        wire.connect(path)
        connection.sock = wire  # instead of one to a port
        connection.request("GET", url)
        reply = connection.getresponse()
        body = reply.read()
    if reply.status != http.client.OK:
        raise OSError(f"GET {url} on {path}: {reply.status} {body.decode(errors='replace')}")
    return json.loads(body)


def engine_version(path: str) -> dict[str, Any] | None:
    """Return the engine's version and storage root, or None where no engine answers."""
    try:
        version, info = ask(path, "/version"), ask(path, "/info")
    except (OSError, ValueError, http.client.HTTPException):
        return None
    return {
        "version": version["Version"],
        "api": version["ApiVersion"],
        "root": info["DockerRootDir"],
        "architecture": version["Arch"],
    }


def os_release(path: Path = Path("/etc/os-release")) -> dict[str, str]:
    """Return the keys of os-release(5) in lower case."""
    pairs = (line.partition("=") for line in path.read_text().splitlines() if "=" in line)
    return {key.lower(): value.strip().strip("\"'") for key, _, value in pairs}


def memory_mb(path: Path = Path("/proc/meminfo")) -> dict[str, int]:
    """Return total memory in MiB (proc_meminfo(5))."""
    values = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return {"total": int(values["MemTotal"].split()[0]) // 1024}


def existing_parent(path: str) -> str:
    """Return `path` or its nearest parent that exists."""
    where = Path(path)
    while not where.exists():
        where = where.parent
    return str(where)


def socket_owners() -> dict[str, str]:
    """Map the inode of every open socket to `name (pid)` of a process that holds it."""
    owners: dict[str, str] = {}
    for process in filter(str.isdigit, os.listdir("/proc")):  # noqa: PTH208 - hundreds of files
        with contextlib.suppress(OSError):
            handles = f"/proc/{process}/fd"
            name = Path(f"/proc/{process}/comm").read_text().strip()
            for handle in os.listdir(handles):  # noqa: PTH208 - and a Path takes twice as long
                with contextlib.suppress(OSError):
                    target = os.readlink(f"{handles}/{handle}")  # noqa: PTH115 - likewise
                    if target.startswith("socket:["):
                        owners[target[8:-1]] = f"{name} (pid {process})"
    return owners


def address_of(raw: str) -> str:
    """Turn the hexadecimal address of proc_net_tcp(5) into text; a mapped IPv4 one into IPv4."""
    words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
    address = ipaddress.ip_address(b"".join(words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def listeners() -> list[dict[str, Any]]:
    """List the ports that something listens on, with the protocol and the process behind each."""
    rows = [
        (protocol, line.split())
        for protocol in LISTEN
        for table in (protocol, f"{protocol}6")
        if (path := Path("/proc/net") / table).exists()
        for line in path.read_text().splitlines()[1:]
    ]
    owners = socket_owners()
    found = {}
    for protocol, row in rows:
        if row[3] == LISTEN[protocol]:
            address, port = row[1].split(":")
            entry = {
                "address": address_of(address),
                "port": int(port, 16),
                "protocol": protocol,
                "process": owners.get(row[9], "an unknown process"),
            }
            found[entry["address"], entry["port"], protocol] = entry
    return [found[key] for key in sorted(found)]


def containers(path: str) -> list[dict[str, Any]]:
    """List every container with its name, state, labels and published ports."""
    return [
        {
            "name": row["Names"][0].lstrip("/"),
            "state": row["State"],
            "health": health_of(row["Status"]),
            "exit_code": exit_code_of(row["Status"]),
            "labels": row["Labels"],
            "ports": sorted({port["PublicPort"] for port in row["Ports"] if "PublicPort" in port}),
        }
        for row in ask(path, "/containers/json?all=true")
    ]


def health_of(status: str) -> str:
    """Return the health that a container's status line ends with, or an empty string."""
    found = re.search(r"\((?:health: )?(\w+)\)$", status)
    return found[1] if found else ""


def exit_code_of(status: str) -> int | None:
    """Return the code that a container's status line says it ended with, or None."""
    found = re.match(r"Exited \((\d+)\)", status)
    return int(found[1]) if found else None


def labelled(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """List networks or volumes with name and labels."""
    return [{"name": row["Name"], "labels": row["Labels"] or {}} for row in rows or []]


def tree_digest(directory: Path) -> str:
    """Hash path, mode, owner and content of the files in a directory; "" if one is unreadable."""
    rows = []
    try:
        for path in directory.rglob("*"):
            if path.is_dir():
                continue
            if not path.is_file() or path.is_symlink():
                return ""  # nobody wrote a project so; and a pipe would be waited for
            status, content = path.stat(), hashlib.sha256(path.read_bytes()).hexdigest()
            mode = status.st_mode & 0o7777
            rows.append(f"{path.relative_to(directory)} {mode:04o} {status.st_uid} {content}\n")
    except OSError:
        return ""
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()


def projects(found: list[dict[str, Any]]) -> dict[str, str]:
    """Map the directory of each Compose project with a container of a platform to its digest."""
    labels = [row["labels"] for row in found if LABEL in row["labels"]]
    directories = {each.get(DIRECTORY_LABEL, "") for each in labels}
    return {name: tree_digest(Path(name)) for name in sorted(directories) if name}


def images(path: str) -> list[str]:
    """List the references of every image."""
    return sorted(tag for row in ask(path, "/images/json") for tag in row["RepoTags"] or [])


def no_proxy(path: str, environment: Mapping[str, str]) -> str | None:
    """Return whom the Docker client asks without a proxy; None where it is set to none.

    It gives its proxies to each container it makes. Their addresses may hold a password, and stay.
    """
    config = Path(environment.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"
    try:
        proxies = json.loads(config.read_text()).get("proxies") or {}
    except (OSError, ValueError):
        return None
    chosen = proxies.get(f"unix://{path}", proxies.get("default")) or {}
    return str(chosen.get("noProxy", "")) if set(chosen) - {"noProxy"} else None


def compose_version(docker: str | None) -> str:
    """Return the version of the Compose plugin, or an empty string where there is none.

    The plugin is asked where clients look for it; the client alone knows of further places, and
    takes four times as long to ask.
    """
    if not docker:
        return ""
    plugins = [str(place / "docker-compose") for place in PLUGINS]
    plugin = next(([path] for path in plugins if os.access(path, os.X_OK)), [docker, "compose"])
    command = [*plugin, "version", "--short"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - the host's own docker client
    return done.stdout.strip().lstrip("v") if done.returncode == 0 else ""


def is_running(pid: str, name: str) -> bool:
    """Tell whether process `pid` exists and is called `name`."""
    try:
        return (Path("/proc") / pid / "comm").read_text().strip() == name
    except OSError:
        return False


def remove_stale_pid_files(run: Path) -> None:
    """Remove pid files of daemons that were killed: a reused pid keeps dockerd from starting."""
    for relative, name in (
        ("docker.pid", "dockerd"),
        ("docker/containerd/containerd.pid", "containerd"),
        ("docker-ssd.pid", "dockerd"),
    ):
        path = run / relative
        if path.exists() and not is_running(path.read_text().strip(), name):
            path.unlink()


def start(dockerd: str, log: Path, systemd: bool) -> None:
    """Start the engine; with systemd by its unit, else as a daemon that outlives this process."""
    if systemd:
        command = ["systemctl", "start", "docker.service"]
        subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - fixed arguments
        return
    remove_stale_pid_files(Path("/var/run"))
    with log.open("ab") as output:
        subprocess.Popen(  # noqa: S603 - the distribution's dockerd
            [dockerd],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
        )


def last_lines(log: Path, systemd: bool, count: int = 15) -> str:
    """Return the end of the daemon's log."""
    if systemd:
        command = ["journalctl", "-u", "docker", "-n", str(count), "--no-pager", "-o", "cat"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - fixed arguments
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else ""


def wait_for(path: str, seconds: int) -> dict[str, Any] | None:
    """Wait until the engine answers with its version; None when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while (engine := engine_version(path)) is None and time.monotonic() < deadline:
        time.sleep(0.3)
    return engine


def describe(path: str, engine: dict[str, Any] | None) -> dict[str, Any]:
    """Gather every fact of the host that a decision of the platform rests on."""
    release = os_release()
    disk = existing_parent(engine["root"] if engine else "/var/lib/docker")
    with ThreadPoolExecutor() as aside:  # what others take their time for, while this reads /proc
        compose = aside.submit(compose_version, shutil.which("docker") if engine else None)
        there = aside.submit(images, path) if engine else None
        ports = listeners()
    found = containers(path) if engine else []
    return {
        "distribution": release.get("id", "unknown"),
        "release": release.get("version_id", "unknown"),
        "name": release.get("pretty_name", "unknown"),
        "systemd": Path("/run/systemd/system").is_dir(),
        "uid": os.geteuid(),
        "debian_mirror": debian_mirror(),
        "memory_mb": memory_mb(),
        "disk_path": disk,
        "disk_free_mb": shutil.disk_usage(disk).free // 2**20,
        "installed": shutil.which("dockerd") is not None or engine is not None,
        "engine": engine,
        "compose": compose.result(),
        "listeners": ports,
        "containers": found,
        "networks": labelled(ask(path, "/networks")) if engine else [],
        "volumes": labelled(ask(path, "/volumes")["Volumes"]) if engine else [],
        "projects": projects(found),
        "images": there.result() if there else [],
        "no_proxy": no_proxy(path, os.environ),
    }


def debian_mirror(apt: Path = Path("/etc/apt")) -> str:
    """Return the Debian mirror this host installs from, or an empty string off Debian."""
    sources = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    text = "\n".join(path.read_text(errors="replace") for path in sources if path.is_file())
    live = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = re.search(r"((?:https?|file|copy):\S*/debian)/?(?=\s)", live + "\n")
    return found.group(1) if found else ""


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "start": {"type": "bool", "default": True},
            "wait": {"type": "int", "default": 60},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
            "log": {"type": "path", "default": "/var/log/dockerd.log"},
        },
        supports_check_mode=True,
    )
    path, log = module.params["socket"], Path(module.params["log"])
    os.environ["PATH"] += os.pathsep + "/usr/sbin:/sbin"
    if not sys.platform.startswith("linux"):
        module.fail_json(msg=f"This host runs {sys.platform}: the platform needs Linux.")
    dockerd = shutil.which("dockerd")
    systemd = Path("/run/systemd/system").is_dir()
    engine = engine_version(path)
    changed = bool(module.params["start"] and dockerd and engine is None)
    if changed and os.geteuid() != 0:
        module.fail_json(
            msg=f"The Docker engine does not answer on {path} and uid {os.geteuid()} may not start "
            "it: run as root, or give Ansible a way to become root (ansible_become, sudo)."
        )
    if changed and dockerd and not module.check_mode:
        start(dockerd, log, systemd)
        engine = wait_for(path, module.params["wait"])
        if engine is None:
            module.fail_json(
                msg=f"dockerd did not answer on {path} within {module.params['wait']} s. "
                f"Its last lines:\n{last_lines(log, systemd)}"
            )
    host = describe(path, engine)
    module.exit_json(changed=changed, ansible_facts={"docker_host": host})


if __name__ == "__main__":
    main()
