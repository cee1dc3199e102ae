"""Which roles a host runs, and how much of a run was asked for."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# what --tags may name, and what --skip-tags may
TAGS = ("docker", "platform", "pipeline", "verify")
SKIPPED = ("pipeline", "verify")
VERBS = {"all", "always", "destroy", "env", "prune", "save"}
# how much a group's name is like a component's where it is taken for a misspelt one; of 1
LIKE = 0.8
DECLARES = re.compile(r"^\s+name: container_service$", re.MULTILINE)


def service_roles(groups: Iterable[str], roles: str) -> list[str]:
    """List the groups that are called as a role that declares a container.

    Args:
        groups: names of groups.
        roles: the directory of the roles.
    """
    tasks = {name: Path(roles) / name / "tasks" / "main.yml" for name in groups}
    return [
        name for name, path in tasks.items() if path.is_file() and DECLARES.search(path.read_text())
    ]


def provisioning(declared: Mapping[str, Mapping[str, Any]], stage: str, roles: str) -> list[str]:
    """List the roles that provision in a stage: once what they declared for it is healthy.

    A role that holds data provisions before applications start, every other one after that.

    Args:
        declared: service name -> declaration.
        stage: `data` or `app`.
        roles: the directory of the roles.
    """
    data = {spec["role"] for spec in declared.values() if spec.get("stage") == "data"}
    every = dict.fromkeys(spec["role"] for spec in declared.values())
    return [
        name
        for name in every
        if (name in data) == (stage == "data")
        and (Path(roles) / name / "tasks" / "provision.yml").is_file()
    ]


def several_hosts(groups: Mapping[str, list[str]], roles: str) -> list[str]:
    """Refuse an inventory whose services are on more than one host.

    Args:
        groups: Ansible's own, group -> hosts.
        roles: the directory of the roles.
    """
    placed = {name: list(groups[name]) for name in service_roles(groups, roles)}
    if len({host for hosts in placed.values() for host in hosts}) <= 1:
        return []
    where = "; ".join(f"{name} on {', '.join(hosts)}" for name, hosts in placed.items() if hosts)
    sentence = (
        f"One platform runs on one host so far, and this inventory has {where}: put its groups on "
        "one host, and give every other host an inventory of its own (`make new NAME=...`)."
    )
    return [sentence]


def misspelt_groups(groups: Mapping[str, list[str]], roles: str) -> list[str]:
    """Refuse a group that is almost called as a component: its hosts would lose that one.

    Any other group is the user's own, and so is one whose hosts have the component anyway.

    Args:
        groups: Ansible's own, group -> hosts.
        roles: the directory of the roles.
    """
    services = service_roles(sorted(path.name for path in Path(roles).iterdir()), roles)
    found = []
    for name in sorted({*groups} - {*services}):
        close = difflib.get_close_matches(name.lower(), services, 1, LIKE)
        if close and {*groups[name]} - {*groups.get(close[0], [])}:
            found.append(
                f"The group {name} of the inventory ({', '.join(groups[name])}) is no component "
                f"(did you mean {close[0]}?): give it the component's name, or another one of its "
                "own."
            )
    return found


def unknown_tags(wanted: Iterable[str], skipped: Iterable[str], roles: str) -> list[str]:
    """Refuse --tags and --skip-tags that would not do what their name says.

    A tag that means nothing here may be skipped: other programs add some of their own.

    Args:
        wanted: Ansible's own ansible_run_tags.
        skipped: ansible_skip_tags.
        roles: the directory of the roles, whose names are no tags.
    """
    needed = meant(roles) - {*SKIPPED}
    return [
        f"There is no tag {tag!r} to run alone ({', '.join(TAGS)} are): a run converges every "
        "service of the inventory and touches only what changed, so leave --tags out."
        for tag in sorted({*wanted} - VERBS - {*TAGS})
    ] + [
        f"The tag {tag!r} cannot be skipped ({' and '.join(SKIPPED)} can): a service that shall "
        "not run has an empty group in the inventory."
        for tag in sorted({*skipped} & needed)
    ]


def meant(roles: str) -> set[str]:
    """Return every tag that means something here, and the names that may be taken for one."""
    names = {path.name for path in Path(roles).iterdir()}
    return {*TAGS, *VERBS, *names, *(name.replace("_", "-") for name in names)}


def partly(
    wanted: Iterable[str],
    skipped: Iterable[str],
    roles: str,
    what: str = "A platform is removed",
) -> list[str]:
    """Refuse --tags and --skip-tags where a platform is to be removed, or all secrets changed.

    Args:
        wanted: Ansible's own ansible_run_tags.
        skipped: ansible_skip_tags.
        roles: the directory of the roles, whose names are no tags.
        what: what is done as a whole.
    """
    tags = sorted({*wanted} - {"all", "always", "destroy"} | {*skipped} & meant(roles))
    sentence = (
        f"{what} as a whole, and tags are given ({', '.join(tags)}): leave --tags "
        "and --skip-tags out."
    )
    return [sentence] if tags else []


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "platform_misspelt_groups": misspelt_groups,
            "platform_partly": partly,
            "platform_provisioning": provisioning,
            "platform_service_roles": service_roles,
            "platform_several_hosts": several_hosts,
            "platform_unknown_tags": unknown_tags,
        }
