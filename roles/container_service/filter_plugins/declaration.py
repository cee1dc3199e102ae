"""What a service says of itself, and what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from ansible.errors import AnsibleFilterError

STAGES = ("data", "job", "app")
# house rules that a service may be excepted from, by the Compose key that says so
RULES = ("cap_add", "ipc", "network_mode", "pid", "pids_limit", "read_only", "user")
NAME = re.compile(r"[a-z][a-z0-9-]{0,40}\Z")
MEMORY = re.compile(r"[1-9][0-9]*[kmg]\Z")
DURATION = re.compile(r"[1-9][0-9]*s\Z")
USER = re.compile(r"[1-9][0-9]*(:[0-9]+)?\Z")
PORT = re.compile(
    r"(?:(?P<address>[0-9.]+|\[[0-9a-f:]+\]):)?(?P<host>[0-9]+):(?P<inside>[0-9]+)"
    r"(?:/(?P<protocol>tcp|udp))?\Z"
)
LAST_PORT = 65535


def stage(spec: Mapping[str, Any]) -> str:
    """Tell when a container starts: `data` before `job` before `app`."""
    return str(spec.get("stage") or "app")


def replicas(spec: Mapping[str, Any]) -> int:
    """Return how many containers of a service run behind its name."""
    return int((spec.get("deploy") or {}).get("replicas") or 1)


def built(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the build of an image that is built here, else nothing."""
    build: Mapping[str, Any] = spec.get("build") or {}
    return build if build.get("context") else {}


def user(spec: Mapping[str, Any]) -> str:
    """Return the uid:gid that a container runs as, an exception counted in."""
    excepted = (spec.get("exceptions") or {}).get("user") or {}
    return str(excepted.get("value") or spec["user"])


def owner(spec: Mapping[str, Any]) -> int:
    """Return the uid that reads a container's secrets and owns its folders on the host."""
    return int(user(spec).partition(":")[0])


def all_complaints(declared: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """List what is wrong with every declaration, one sentence each."""
    return [
        f"container_service_spec.{key} of {spec['name']!r} is {seen!r}: {expected}."
        for spec in declared.values()
        for key, seen, expected in (*faults(spec), *neighbour_faults(spec, declared))
    ]


def faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with a declaration: the key, the value seen and what is expected."""
    if not NAME.match(spec["name"]):
        yield "name", spec["name"], "use lower-case letters, digits and dashes, at most 41"
    if stage(spec) not in STAGES:
        yield "stage", spec["stage"], f"use one of {', '.join(STAGES)}"
    if not MEMORY.match(str(spec.get("mem_limit"))):
        yield "mem_limit", spec.get("mem_limit"), "give a limit such as 512m or 2g"
    if not USER.match(str(spec.get("user"))) and "user" not in (spec.get("exceptions") or {}):
        yield "user", spec.get("user"), "give a numeric uid:gid that is not root"
    yield from health_faults(spec)
    yield from image_faults(spec)
    yield from port_faults(spec)
    yield from content_faults(spec)
    yield from volume_faults(spec)
    yield from exception_faults(spec)


def health_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the health check of a declaration, as `faults` does."""
    given = spec.get("healthcheck") or {}
    if stage(spec) == "job":
        if given:
            yield "healthcheck", given, "a job has none: its exit code tells"
        return
    if not given.get("test"):
        yield "healthcheck", given, "give as `test` the command that proves it works"
    start = given.get("start_period")
    if start is not None and not DURATION.match(str(start)):
        yield "healthcheck.start_period", start, "give seconds such as 180s"


def image_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the image of a declaration, as `faults` does."""
    image, build = spec.get("image") or "", built(spec)
    if bool(image) == bool(build):
        yield "image", image, "give either image, a reference with a tag or digest, or build"
    last = image.rpartition("/")[2]
    if image and "@sha256:" not in last and (":" not in last or last.endswith(":latest")):
        yield "image", image, "give a tag that is a version, or a digest"


def port_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the ports of a declaration, as `faults` does."""
    ports = spec.get("ports") or []
    for port in ports:
        match = PORT.match(port)
        if not match or not all(0 < int(match[part]) <= LAST_PORT for part in ("host", "inside")):
            expected = "give host:container or address:host:container, each 1 to 65535"
            yield "ports", port, f"{expected}, with /udp where it is UDP"
    if ports and replicas(spec) > 1:
        yield "ports", ports, "several replicas cannot have one port of the host: publish none"
    if ports and "network_mode" in (spec.get("exceptions") or {}):
        yield "ports", ports, "in the host's network all its ports are the host's: publish none"
    if replicas(spec) > 1 and stage(spec) == "job":
        yield "deploy.replicas", replicas(spec), "a job is one container"


def content_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the files and secrets of a declaration, as `faults` does."""
    for kind, depth in (("files", 9), ("secrets", 1)):
        for key, content in (spec.get(kind) or {}).items():
            parts = key.split("/")
            if len(parts) > depth or any(not part or part.startswith(".") for part in parts):
                expected = "plain file name" if depth == 1 else "name below the directory"
                yield kind, key, f"give a {expected}"
            if not content:
                yield f"{kind}.{key}", "", "it is empty: set the value it is made from"


def volume_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the volumes of a declaration, as `faults` does."""
    for volume in spec.get("volumes") or []:
        if isinstance(volume, str):
            continue
        paths = [str(volume.get(key, "")) for key in ("source", "target")]
        if volume.get("type") != "bind" or not all(PurePosixPath(p).is_absolute() for p in paths):
            expected = "give type: bind with an absolute source and target, or name:/path"
            yield "volumes", dict(volume), expected


def exception_faults(spec: Mapping[str, Any]) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with the exceptions of a declaration, as `faults` does."""
    for rule, given in (spec.get("exceptions") or {}).items():
        if rule not in RULES:
            yield "exceptions", rule, f"the rules with exceptions are {', '.join(RULES)}"
        elif "value" not in given or not str(given.get("reason") or "").strip():
            yield f"exceptions.{rule}", dict(given), "give value and the reason for it"


def neighbour_faults(
    spec: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, object, str]]:
    """Yield what is wrong with how a declaration refers to others, as `faults` does."""
    order, when = list(declared), STAGES.index(stage(spec))
    for name in spec.get("depends_on") or []:
        if name not in declared:
            yield "depends_on", name, f"declared here are {', '.join(declared)}"
            continue
        other = STAGES.index(stage(declared[name]))
        late = other == when == STAGES.index("job") and order.index(name) > order.index(
            spec["name"]
        )
        if other > when or late:
            yield "depends_on", name, f"it starts later, as a {stage(declared[name])}"


def declare(
    declared: Mapping[str, Mapping[str, Any]], spec: Mapping[str, Any], role: str
) -> dict[str, Any]:
    """Add a declaration; `build.context` becomes absolute, for it is relative to its role.

    Args:
        declared: what is declared so far, service name -> declaration.
        spec: container_service_spec.
        role: directory of the role that declares.

    Raises:
        AnsibleFilterError: a service of that name is declared already.
    """
    name, build = spec["name"], built(spec)
    before = declared.get(name)
    if before:
        raise AnsibleFilterError(
            f"{name!r} is declared twice, by role {before['role']} and by role {Path(role).name}: "
            "rename one of them."
        )
    resolved = {"build": {**build, "context": str(Path(role) / build["context"])}} if build else {}
    return {**declared, name: {**spec, **resolved, "role": Path(role).name}}


def published(spec: Mapping[str, Any], address: str) -> list[str]:
    """Return the ports of a declaration, `address` put before each that names none."""
    return [
        port if (match := PORT.match(port)) and match["address"] else f"{address}:{port}"
        for port in spec.get("ports") or []
    ]


def sockets(spec: Mapping[str, Any], address: str) -> list[dict[str, Any]]:
    """Return where a container can be reached; a port with a fault, told elsewhere, is left out."""
    return [
        {
            "inside": int(match["inside"]),
            "address": match["address"].strip("[]"),
            "port": int(match["host"]),
            "protocol": match["protocol"] or "tcp",
        }
        for match in map(PORT.match, published(spec, address))
        if match
    ]


def promises(declared: Mapping[str, Mapping[str, Any]], address: str) -> dict[str, Any]:
    """Map each declared service to what of it can be judged from outside.

    Args:
        declared: service name -> declaration.
        address: host address that ports are published on where a spec names none.
    """
    return {
        name: {
            "stage": stage(spec),
            "replicas": replicas(spec),
            "user": user(spec),
            "memory": str(spec["mem_limit"]),
            "ports": sockets(spec, address),
            "exposed": [int(port) for port in spec.get("expose") or []],
            "exceptions": {
                rule: str(given["reason"]) for rule, given in (spec.get("exceptions") or {}).items()
            },
        }
        for name, spec in declared.items()
    }


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "container_service_complaints": all_complaints,
            "container_service_declare": declare,
            "container_service_promises": promises,
        }
