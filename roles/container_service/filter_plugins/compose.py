"""From what a service says of itself to the Compose project that runs it: the house rules."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

LABEL = "mlops.platform"
DIGEST = "mlops.digest"
FILES_AT = "/config"
PIDS = 1024
START_INTERVAL_API = (1, 44)
NAME = re.compile(r"[a-z][a-z0-9-]{0,40}\Z")
MEMORY = re.compile(r"[1-9][0-9]*[kmg]\Z")
USER = re.compile(r"[1-9][0-9]*(:[0-9]+)?\Z")
PORT = re.compile(r"(?:(?P<address>[0-9.]+|\[[0-9a-f:]+\]):)?(?P<host>[0-9]+):(?P<inside>[0-9]+)\Z")
LAST_PORT = 65535


def check(spec: Mapping[str, Any]) -> None:
    """Refuse a declaration that the types of the argument spec let through.

    Raises:
        AnsibleFilterError: with the service's name, the value seen and what is expected.
    """
    for sentence in complaints(spec):
        raise AnsibleFilterError(sentence)


def complaints(spec: Mapping[str, Any]) -> list[str]:
    """List what is wrong with a declaration, one sentence each."""
    return [
        f"container_service_spec.{key} of {spec['name']!r} is {seen!r}: {expected}."
        for key, seen, expected in faults(spec)
    ]


def faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with a declaration: the key, the value seen and what is expected."""
    if not NAME.match(spec["name"]):
        yield "name", spec["name"], "use lower-case letters, digits and dashes, at most 41"
    if not spec.get("healthcheck"):
        yield "healthcheck", spec.get("healthcheck"), "give the command that proves it works"
    if not MEMORY.match(str(spec.get("memory"))):
        yield "memory", spec.get("memory"), "give a limit such as 512m or 2g"
    if not USER.match(str(spec.get("user"))):
        yield "user", spec.get("user"), "give a numeric uid:gid that is not root"
    yield from image_faults(spec)
    yield from port_faults(spec)
    yield from content_faults(spec)


def image_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the image of a declaration, as `faults` does."""
    image, build = spec.get("image") or "", spec.get("build") or {}
    if bool(image) == bool(build):
        yield "image", image, "give either image, a reference with a tag or digest, or build"
    last = image.rpartition("/")[2]
    if image and "@sha256:" not in last and (":" not in last or last.endswith(":latest")):
        yield "image", image, "give a tag that is a version, or a digest"


def port_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the ports of a declaration, as `faults` does."""
    for port in spec.get("ports") or []:
        match = PORT.match(port)
        if not match or not all(0 < int(match[part]) <= LAST_PORT for part in ("host", "inside")):
            yield "ports", port, "give host:container or address:host:container, each 1 to 65535"


def content_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the files and secrets of a declaration, as `faults` does."""
    for kind in ("files", "secrets"):
        for key, content in (spec.get(kind) or {}).items():
            if "/" in key or key.startswith("."):
                yield kind, key, "give a plain file name"
            if not content:
                yield f"{kind}.{key}", "", "it is empty: set the value it is made from"


def resolve(spec: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Make the directory of `build.context` absolute: it is relative to the declaring role."""
    build = spec.get("build") or {}
    if not build:
        return dict(spec)
    return {**spec, "build": {**build, "context": str(Path(role) / build["context"])}}


def published(ports: list[str], address: str) -> list[str]:
    """Put `address` before each port that names none."""
    return [
        port if (match := PORT.match(port)) and match["address"] else f"{address}:{port}"
        for port in ports
    ]


def promises(declared: Mapping[str, Mapping[str, Any]], address: str) -> dict[str, Any]:
    """Map each declared service to what of it can be judged from outside: user, memory, ports.

    Args:
        declared: service name -> container_service_spec.
        address: host address that ports are published on where a spec names none.
    """
    return {
        name: {
            "user": str(spec["user"]),
            "memory": str(spec["memory"]),
            "ports": [
                {
                    "inside": int(match["inside"]),
                    "address": match["address"].strip("[]"),
                    "port": int(match["host"]),
                }
                for entry in published(spec.get("ports") or [], address)
                if (match := PORT.match(entry))
            ],
        }
        for name, spec in declared.items()
    }


def service_digest(spec: Mapping[str, Any], service: Mapping[str, Any]) -> str:
    """Hash all that makes a container what it is: its service, its files and its secrets.

    As a label it makes Compose recreate a container whose files changed, which Compose would not
    notice, and shows that a running container is the declared one without asking Compose.
    """
    content = [service, spec.get("files") or {}, spec.get("secrets") or {}]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def is_named_volume(volume: str) -> bool:
    """Tell whether a volume entry names a volume, and not a path on the host or a tmpfs."""
    return not volume.startswith(("/", "tmpfs:"))


def compose_service(
    spec: Mapping[str, Any], image: str, platform: str, address: str, engine_api: str
) -> dict[str, Any]:
    """Return one service of a Compose file, the house rules added to what `spec` declares."""
    name = spec["name"]
    volumes = spec.get("volumes") or []
    interval = {"interval": "5s"}
    if tuple(int(part) for part in engine_api.split(".")) >= START_INTERVAL_API:
        interval = {"interval": "30s", "start_interval": "1s"}
    service: dict[str, Any] = {
        "image": image,
        "container_name": f"{platform}-{name}",
        "hostname": name,
        "user": str(spec["user"]),
        "command": [str(word) for word in spec.get("command") or []],
        "environment": {key: str(value) for key, value in (spec.get("environment") or {}).items()},
        "volumes": [volume for volume in volumes if not volume.startswith("tmpfs:")],
        "tmpfs": ["/tmp", *[v.removeprefix("tmpfs:") for v in volumes if v.startswith("tmpfs:")]],  # noqa: S108
        "ports": published(spec.get("ports") or [], address),
        "secrets": [
            {"source": f"{name}_{key}", "target": key} for key in sorted(spec.get("secrets") or {})
        ],
        "healthcheck": {
            "test": ["CMD", *spec["healthcheck"]],
            "timeout": "10s",
            "retries": 5,
            "start_period": "60s",
            **interval,
        },
        "labels": {LABEL: platform, "mlops.service": name},
        "mem_limit": spec["memory"],
        "memswap_limit": spec["memory"],
        "pids_limit": PIDS,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "restart": "unless-stopped",
        "stop_grace_period": "30s",
        "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    }
    if spec.get("files"):
        service["volumes"].append(f"./services/{name}/files:{FILES_AT}:ro")
    service = {key: value for key, value in service.items() if value}
    service["labels"][DIGEST] = service_digest(spec, service)
    return service


def tree_digest(entries: Iterable[Mapping[str, Any]]) -> str:
    """Hash path, mode, owner and content of files as docker_engine does of those on the host."""
    rows = [
        f"{entry['path']} {entry['mode']} {entry['owner']} "
        f"{hashlib.sha256(entry['content'].encode()).hexdigest()}\n"
        for entry in entries
    ]
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()


def settled(project: Mapping[str, Any], host: Mapping[str, Any], directory: str, tree: str) -> bool:
    """Tell whether all of `project`, and nothing else of its platform, runs healthy as declared.

    Args:
        project: the Compose project.
        host: the fact docker_host, with its containers and projects.
        directory: where the project's files are on the host.
        tree: what `tree_digest` says of the files that shall be there.
    """
    if host["projects"].get(directory) != tree:
        return False
    running = {
        container["name"]: container["labels"].get(DIGEST)
        for container in host["containers"]
        if container["labels"].get(LABEL) == project["name"]
        and (container["state"], container["health"]) == ("running", "healthy")
    }
    there = {
        container["name"]
        for container in host["containers"]
        if container["labels"].get(LABEL) == project["name"]
    }
    wanted = {
        service["container_name"]: service["labels"][DIGEST]
        for service in project["services"].values()
    }
    return running == wanted and there == set(wanted)


def compose_project(
    declared: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, str],
    platform: str,
    address: str,
    engine_api: str,
) -> dict[str, Any]:
    """Return the Compose project that runs every declared service.

    Args:
        declared: service name -> container_service_spec, in start order.
        images: service name -> reference, for services that build their image.
        platform: the platform's name; it prefixes containers, network and volumes.
        address: host address that ports are published on where a spec names none.
        engine_api: API version of the engine, such as "1.41".
    """
    for spec in declared.values():
        check(spec)
    label = {"labels": {LABEL: platform}}
    volumes = sorted(
        volume.partition(":")[0]
        for spec in declared.values()
        for volume in spec.get("volumes") or []
        if is_named_volume(volume)
    )
    secrets = {
        f"{name}_{key}": {"file": f"./services/{name}/secrets/{key}"}
        for name, spec in declared.items()
        for key in sorted(spec.get("secrets") or {})
    }
    project: dict[str, Any] = {
        "name": platform,
        "services": {
            name: compose_service(
                spec, spec.get("image") or images.get(name, ""), platform, address, engine_api
            )
            for name, spec in declared.items()
        },
        "networks": {"default": {"name": platform, **label}},
        "volumes": {name: {"name": f"{platform}_{name}", **label} for name in volumes},
        "secrets": secrets,
    }
    return {key: value for key, value in project.items() if value}


EXEC = """\
#!/bin/sh
# Run a command in the container, or Python on what comes by stdin.
[ $# -gt 0 ] || set -- python3
exec docker exec -i {container} "$@"
"""


def project_files(
    declared: Mapping[str, Mapping[str, Any]], compose_file: str, platform: str
) -> list[dict[str, Any]]:
    """List every file of the project on the host but the secrets."""
    commands = [
        {
            "path": f"bin/{name}",
            "content": EXEC.format(container=f"{platform}-{name}"),
            "mode": "0755",
            "owner": 0,
        }
        for name in declared
    ]
    own = [
        {
            "path": f"services/{name}/files/{key}",
            "content": str(content),
            "mode": "0644",
            "owner": 0,
        }
        for name, spec in declared.items()
        for key, content in sorted((spec.get("files") or {}).items())
    ]
    # Compose reads a single dollar as the start of a variable
    literal = compose_file.replace("$", "$$")
    project = {"path": "compose.yaml", "content": literal, "mode": "0644", "owner": 0}
    return [project, *commands, *own]


def project_secrets(declared: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """List every secret file of the project, each for the uid that reads it."""
    return [
        {
            "path": f"services/{name}/secrets/{key}",
            "content": str(content),
            "mode": "0600",
            "owner": int(str(spec["user"]).partition(":")[0]),
        }
        for name, spec in declared.items()
        for key, content in sorted((spec.get("secrets") or {}).items())
    ]


def builds(declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Map each service that builds its image to its build."""
    return {name: spec["build"] for name, spec in declared.items() if spec.get("build")}


def overlap(one: str, other: str) -> bool:
    """Tell whether one port can not be bound on both addresses."""
    everywhere = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound
    return one == other or one in everywhere or other in everywhere


def port_conflicts(
    declared: Mapping[str, Mapping[str, Any]], host: Mapping[str, Any], platform: str, address: str
) -> list[str]:
    """Name every port that a declared service wants and something else has or wants too.

    A declaration with faults is told first: this is the first that looks at all of them.

    Args:
        host: the fact docker_host, with its listeners and containers.
    """
    wrong = [sentence for spec in declared.values() for sentence in complaints(spec)]
    if wrong:
        return wrong  # a port that is none cannot be compared
    ours = {
        port
        for container in host["containers"]
        if container["labels"].get(LABEL) == platform and container["state"] == "running"
        for port in container["ports"]
    }
    theirs = {
        port: f"container {container['name']}"
        for container in host["containers"]
        if container["labels"].get(LABEL) != platform
        for port in container["ports"]
    }
    found: list[str] = []
    claims: list[tuple[str, str, int]] = []
    for name, spec in declared.items():
        for entry in published(spec.get("ports") or [], address):
            match = PORT.match(entry)
            wanted, port = (match["address"].strip("[]"), int(match["host"])) if match else ("", 0)
            holders = [
                theirs.get(port, row["process"])
                for row in host["listeners"]
                if row["port"] == port and port not in ours and overlap(row["address"], wanted)
            ]
            rivals = [who for who, at, number in claims if number == port and overlap(at, wanted)]
            found += [
                f"{name} wants {wanted}:{port}, which {who} has: stop it, or set another port "
                "for the service in the inventory."
                for who in holders[:1]
            ]
            found += [
                f"{name} wants {wanted}:{port}, which {who} wants too: set another port for one of "
                "them in the inventory."
                for who in rivals
            ]
            claims.append((name, wanted, port))
    return found


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "container_service_builds": builds,
            "container_service_files": project_files,
            "container_service_port_conflicts": port_conflicts,
            "container_service_project": compose_project,
            "container_service_promises": promises,
            "container_service_resolve": resolve,
            "container_service_secrets": project_secrets,
            "container_service_settled": settled,
            "container_service_tree_digest": tree_digest,
        }
