"""What a host has, held against what is declared for it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from compose import DIGEST, IDENTITY, LABEL, SERVICE  # by file: so Ansible loads plugins
from declaration import all_complaints, replicas, sockets, stage

PROJECT = "com.docker.compose.project"
UNITS = {"k": 1 / 1024, "m": 1, "g": 1024}
ANOTHER = "give this platform another name with `make new NAME=...`"
WAYS_OUT = {
    "containers": f"rename or remove it, or {ANOTHER}",
    "networks": f"remove it, or {ANOTHER}",
    "volumes": f"{ANOTHER}; where it is a backup of this platform, docs/operations.md says how to "
    "restore it as its own",
}


def tree_digest(entries: Iterable[Mapping[str, Any]]) -> str:
    """Hash path, mode, owner and content of files as docker_engine does of those on the host."""
    rows = [
        f"{entry['path']} {entry['mode']} {entry['owner']} "
        f"{hashlib.sha256(entry['content'].encode()).hexdigest()}\n"
        for entry in entries
    ]
    return hashlib.sha256("".join(sorted(rows)).encode()).hexdigest()


def ours(host: Mapping[str, Any], platform: str) -> list[Mapping[str, Any]]:
    """List the containers that carry the platform's label."""
    return [each for each in host["containers"] if each["labels"].get(LABEL) == platform]


def done(container: Mapping[str, Any], when: str) -> bool:
    """Tell whether a container is as it shall be in its stage: healthy, or ended well."""
    if when == "job":
        return (container["state"], container["exit_code"]) == ("exited", 0)
    return (container["state"], container["health"]) == ("running", "healthy")


def unsettled(
    declared: Mapping[str, Mapping[str, Any]],
    project: Mapping[str, Any],
    host: Mapping[str, Any],
    when: str,
) -> list[str]:
    """List the services of a stage that do not run, or did not end well, as they are declared.

    Args:
        declared: service name -> declaration.
        project: the Compose project of these.
        host: the fact docker_host.
        when: the stage.
    """
    there = ours(host, project["name"])
    found = []
    for name, spec in declared.items():
        digest = project["services"][name]["labels"][DIGEST]
        seen = [
            done(each, when) and each["labels"].get(DIGEST) == digest
            for each in there
            if each["labels"].get(SERVICE) == name
        ]
        if stage(spec) == when and seen != [True] * replicas(spec):
            found.append(name)
    return found


def settled(
    declared: Mapping[str, Mapping[str, Any]],
    project: Mapping[str, Any],
    host: Mapping[str, Any],
    directory: str,
    tree: str,
) -> bool:
    """Tell whether all that is declared, and nothing else of its platform, is there as declared.

    Args:
        declared: service name -> declaration.
        project: the Compose project of these.
        host: the fact docker_host, with its containers and projects.
        directory: where the project's files are on the host.
        tree: what `tree_digest` says of the files that shall be there.
    """
    there = {each["labels"].get(SERVICE) for each in ours(host, project["name"])}
    return (
        host["projects"].get(directory) == tree
        and there == set(declared)
        and not any(unsettled(declared, project, host, when) for when in ("data", "job", "app"))
    )


def strangers(project: Mapping[str, Any], host: Mapping[str, Any]) -> list[str]:
    """Name what has a name that the project wants, or is in a project called so, and is not ours.

    Args:
        project: the Compose project.
        host: the fact docker_host, with its containers, networks and volumes.
    """
    platform = project["name"]
    names = {service.get("container_name") for service in project["services"].values()}
    wanted = {
        "containers": names,
        "networks": {entry["name"] for entry in project["networks"].values()},
        "volumes": {entry["name"] for entry in project.get("volumes", {}).values()},
    }
    return [
        f"There is a {kind[:-1]} {each['name']} that is not of platform {platform} (it has no "
        f"label {LABEL}={platform}): {WAYS_OUT[kind]}."
        for kind, own in wanted.items()
        for each in host[kind]
        if each["labels"].get(LABEL) != platform
        and (each["name"] in own or each["labels"].get(PROJECT) == platform)
    ]


def other_inventory(host: Mapping[str, Any], platform: str, identity: str) -> list[str]:
    """Say that containers of a platform were made from another inventory, with its own secrets.

    Args:
        host: the fact docker_host, with its containers.
        platform: the platform's name.
        identity: of this inventory.
    """
    made = {each["labels"].get(IDENTITY, identity) for each in ours(host, platform)}
    return [
        f"The containers of platform {platform} were made from another inventory ({IDENTITY} is "
        f"{other}, this one is {identity}), and would get the secrets of this one: use that "
        f"inventory, or {ANOTHER}; to go on from here, put its .secrets directory in "
        f"place of this one or set platform_identity: {other}."
        for other in sorted(made - {identity})
    ]


def memory_limits(declared: Mapping[str, Mapping[str, Any]]) -> int:
    """Add up what long-lived services may use, in MiB."""
    limits = [
        (str(spec["mem_limit"]), replicas(spec))
        for spec in declared.values()
        if stage(spec) != "job"
    ]
    return int(sum(int(limit[:-1]) * UNITS[limit[-1]] * count for limit, count in limits))


def clash(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two want one port on addresses that cannot both be bound."""
    everywhere = {"0.0.0.0", "::"}  # noqa: S104 - compared with, not bound
    addresses = {one["address"], other["address"]}
    same = (one["port"], one["protocol"]) == (other["port"], other["protocol"])
    return same and (len(addresses) == 1 or bool(addresses & everywhere))


def port_conflicts(
    declared: Mapping[str, Mapping[str, Any]], host: Mapping[str, Any], platform: str, address: str
) -> list[str]:
    """Name every port that a declared service wants and something else has or wants too.

    A declaration with faults is told first: this is the first that looks at all of them.

    Args:
        declared: service name -> declaration.
        host: the fact docker_host, with its listeners and containers.
        platform: the platform's name.
        address: host address that ports are published on where a spec names none.
    """
    if wrong := all_complaints(declared):
        return wrong  # a port that is none cannot be compared
    there = ours(host, platform)
    own = {port for each in there if each["state"] == "running" for port in each["ports"]}
    # one that fails and is started again has its ports for a moment each time
    failing = {each["labels"].get(SERVICE) for each in there if each["state"] == "restarting"}
    theirs = {
        port: f"container {container['name']}"
        for container in host["containers"]
        if container["labels"].get(LABEL) != platform
        for port in container["ports"]
    }
    taken = [row for row in host["listeners"] if row["port"] not in own]
    found: list[str] = []
    claims: list[tuple[str, Mapping[str, Any]]] = []
    for name, spec in declared.items():
        for wanted in sockets(spec, address):
            port, here = wanted["port"], f"{wanted['address']}:{wanted['port']}"
            holders = [theirs.get(port, row["process"]) for row in taken if clash(row, wanted)]
            found += [
                f"{name} wants {here}, which {who} has: stop it, or set another port for the "
                "service in the inventory."
                for who in holders[:1]
                if name not in failing
            ]
            found += [
                f"{name} wants {here}, which {who} wants too: set another port for one of them in "
                "the inventory."
                for who, claim in claims
                if clash(claim, wanted)
            ]
            claims.append((name, wanted))
    return found


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "container_service_memory_limits": memory_limits,
            "container_service_other_inventory": other_inventory,
            "container_service_port_conflicts": port_conflicts,
            "container_service_settled": settled,
            "container_service_strangers": strangers,
            "container_service_tree_digest": tree_digest,
            "container_service_unsettled": unsettled,
        }
