#!/usr/bin/python
# Ansible reads the documentation blocks first, so they stand before the imports.
# ruff: noqa: E402
"""Start the Docker engine where it does not answer, and tell what the host is and runs."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: docker_engine
short_description: Start the Docker engine and gather what the platform must know of the host
description:
  - One call that reaches the host for every fact the platform decides on; no other call has to.
  - Where an engine is installed and does not answer it is started, by systemd where that is PID 1,
    else as a process of its own.
  - A pid file left by a killed daemon is removed when its process is no longer a C(dockerd).
  - The directory of each Compose project whose containers carry O(label) is told by a digest of
    its files, so whoever wrote them can tell from afar that they are as written.
options:
  start:
    description: Start an installed engine that does not answer.
    type: bool
    default: true
  wait:
    description: Seconds to wait for a started engine to answer.
    type: int
    default: 60
  socket:
    description: The engine's socket.
    type: path
    default: /var/run/docker.sock
  label:
    description: Label of the containers whose Compose project is told by its digest.
    type: str
    default: mlops.platform
  log:
    description: Where a C(dockerd) started without systemd writes its log.
    type: path
    default: /var/log/dockerd.log
attributes:
  check_mode:
    support: full
    description: In check mode nothing is started.
  diff_mode:
    support: none
"""

EXAMPLES = r"""
- name: Start the engine and look at the host
  docker_engine:
"""

RETURN = r"""
ansible_facts:
  description: One fact, C(docker_host).
  returned: always
  type: dict
  contains:
    docker_host:
      description: Distribution, memory, disk, engine, listeners, containers, images and projects.
      type: dict
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
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

LISTEN = "0A"
DIRECTORY_LABEL = "com.docker.compose.project.working_dir"
PLUGINS = (
    Path.home() / ".docker/cli-plugins",
    Path("/usr/local/lib/docker/cli-plugins"),
    Path("/usr/local/libexec/docker/cli-plugins"),
    Path("/usr/lib/docker/cli-plugins"),
    Path("/usr/libexec/docker/cli-plugins"),
)


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float = 20.0) -> None:
        """Speak to the socket at `path`."""
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a port."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(path: str, url: str) -> Any:  # noqa: ANN401 - JSON of any shape
    """Return the engine's JSON answer to GET `url`; raises OSError where none answers."""
    connection = UnixConnection(path)
    try:
        connection.request("GET", url)
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != http.client.OK:
            raise OSError(f"GET {url} on {path}: {reply.status} {body.decode(errors='replace')}")
        return json.loads(body)
    finally:
        connection.close()


def engine_version(path: str) -> dict[str, Any] | None:
    """Return the engine's version and storage root, or None where no engine answers."""
    try:
        version = ask(path, "/version")
        info = ask(path, "/info")
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
    """Return total and available memory in MiB (proc_meminfo(5))."""
    values = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return {
        name: int(values[key].split()[0]) // 1024
        for name, key in (("total", "MemTotal"), ("available", "MemAvailable"))
    }


def existing_parent(path: str) -> str:
    """Return `path` or its nearest parent that exists."""
    where = Path(path)
    while not where.exists():
        where = where.parent
    return str(where)


def socket_owners() -> dict[str, str]:
    """Map the inode of every open socket to `name (pid)` of a process that holds it."""
    owners: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            name = (process / "comm").read_text().strip()
            for handle in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(handle.readlink())
                    if target.startswith("socket:["):
                        owners[target[8:-1]] = f"{name} (pid {process.name})"
    return owners


def address_of(raw: str) -> str:
    """Turn the hexadecimal address of proc_net_tcp(5) into text; a mapped IPv4 one into IPv4."""
    words = [bytes.fromhex(raw[i : i + 8])[::-1] for i in range(0, len(raw), 8)]
    packed = b"".join(words)
    address = ipaddress.ip_address(packed)
    return str(getattr(address, "ipv4_mapped", None) or address)


def listeners() -> list[dict[str, Any]]:
    """List the TCP ports that something listens on, with the process behind each."""
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        if (path := Path("/proc/net") / table).exists()
        for line in path.read_text().splitlines()[1:]
    ]
    owners = socket_owners()
    found = {}
    for row in rows:
        if row[3] == LISTEN:
            address, port = row[1].split(":")
            entry = {
                "address": address_of(address),
                "port": int(port, 16),
                "process": owners.get(row[9], "an unknown process"),
            }
            found[entry["address"], entry["port"]] = entry
    return [found[key] for key in sorted(found)]


def containers(path: str) -> list[dict[str, Any]]:
    """List every container with its name, state, labels and published ports."""
    return [
        {
            "name": row["Names"][0].lstrip("/"),
            "state": row["State"],
            "health": health_of(row["Status"]),
            "labels": row["Labels"],
            "ports": sorted({port["PublicPort"] for port in row["Ports"] if "PublicPort" in port}),
        }
        for row in ask(path, "/containers/json?all=true")
    ]


def health_of(status: str) -> str:
    """Return the health that a container's status line ends with, or an empty string."""
    found = re.search(r"\((?:health: )?(\w+)\)$", status)
    return found[1] if found else ""


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


def projects(found: list[dict[str, Any]], label: str) -> dict[str, str]:
    """Map the directory of each Compose project with a container that has `label` to its digest."""
    directories = {
        row["labels"].get(DIRECTORY_LABEL, "") for row in found if label in row["labels"]
    }
    return {name: tree_digest(Path(name)) for name in sorted(directories) if name}


def images(path: str) -> list[str]:
    """List the references of every image."""
    return sorted(tag for row in ask(path, "/images/json") for tag in row["RepoTags"] or [])


def compose_version(docker: str | None) -> str:
    """Return the version of the Compose plugin, or an empty string where there is none.

    The plugin is asked where clients look for it; the client alone knows of further places, and
    takes four times as long to ask.
    """
    if not docker:
        return ""
    plugins = (place / "docker-compose" for place in PLUGINS)
    plugin = next(
        ([str(path)] for path in plugins if os.access(path, os.X_OK)), [docker, "compose"]
    )
    done = subprocess.run(  # noqa: S603 - the host's own docker client
        [*plugin, "version", "--short"], capture_output=True, text=True, check=False
    )
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
        subprocess.run(
            ["systemctl", "start", "docker.service"],  # noqa: S607 - systemd's own place differs
            check=False,
            capture_output=True,
        )
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
            close_fds=True,
        )


def last_lines(log: Path, systemd: bool, count: int = 15) -> str:
    """Return the end of the daemon's log."""
    if systemd:
        done = subprocess.run(  # noqa: S603 - fixed arguments
            ["journalctl", "-u", "docker", "-n", str(count), "--no-pager", "-o", "cat"],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout
    return "\n".join(log.read_text(errors="replace").splitlines()[-count:]) if log.exists() else ""


def wait_for(path: str, seconds: int) -> bool:
    """Wait until the engine answers; False when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while engine_version(path) is None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.3)
    return True


def describe(path: str, label: str) -> dict[str, Any]:
    """Gather every fact of the host that a decision of the platform rests on."""
    engine = engine_version(path)
    release = os_release()
    docker = shutil.which("docker")
    disk = existing_parent(engine["root"] if engine else "/var/lib/docker")
    found = containers(path) if engine else []
    return {
        "distribution": release.get("id", "unknown"),
        "release": release.get("version_id", "unknown"),
        "name": release.get("pretty_name", "unknown"),
        "systemd": Path("/run/systemd/system").is_dir(),
        "uid": os.geteuid(),
        "python_apt": has_python_apt(),
        "debian_mirror": debian_mirror(),
        "memory_mb": memory_mb(),
        "disk_path": disk,
        "disk_free_mb": shutil.disk_usage(disk).free // 2**20,
        "installed": shutil.which("dockerd") is not None or engine is not None,
        "engine": engine,
        "compose": compose_version(docker) if engine else "",
        "listeners": listeners(),
        "containers": found,
        "projects": projects(found, label),
        "images": images(path) if engine else [],
    }


def debian_mirror(apt: Path = Path("/etc/apt")) -> str:
    """Return the Debian mirror this host installs from, or an empty string off Debian."""
    sources = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]
    text = "\n".join(path.read_text(errors="replace") for path in sources if path.is_file())
    live = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found = re.search(r"((?:https?|file|copy):\S*/debian)/?(?=\s)", live + "\n")
    return found.group(1) if found else ""


def has_python_apt() -> bool:
    """Tell whether Ansible's apt module can work in check mode on this host."""
    return any(Path("/usr/lib/python3/dist-packages").glob("apt_pkg*.so"))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "start": {"type": "bool", "default": True},
            "wait": {"type": "int", "default": 60},
            "socket": {"type": "path", "default": "/var/run/docker.sock"},
            "label": {"type": "str", "default": "mlops.platform"},
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
    changed = bool(module.params["start"] and dockerd and engine_version(path) is None)
    if changed and os.geteuid() != 0:
        module.fail_json(
            msg=f"The Docker engine does not answer on {path} and uid {os.geteuid()} may not start "
            "it: run as root, or give Ansible a way to become root (ansible_become, sudo)."
        )
    if changed and dockerd and not module.check_mode:
        start(dockerd, log, systemd)
        if not wait_for(path, module.params["wait"]):
            module.fail_json(
                msg=f"dockerd did not answer on {path} within {module.params['wait']} s. "
                f"Its last lines:\n{last_lines(log, systemd)}"
            )
    host = describe(path, module.params["label"])
    module.exit_json(changed=changed, ansible_facts={"docker_host": host})


if __name__ == "__main__":
    main()
