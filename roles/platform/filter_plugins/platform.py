"""What speaks against a run before a host is touched."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# what text is not taken for as it is -> how it is written after -e, and what converts it
EXAMPLES = {"int": "a whole number", "bool": "true or false", "list": "[...]", "dict": "{...}"}
CONVERTED = {"int": int, "bool": boolean}


@functools.cache
def known_variables(roles: Path) -> dict[str, dict[str, str]]:
    """Map each role to the variables that its argument_specs document, each with its type."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        points = yaml.load(path.read_text(), Loader=LOADER)["argument_specs"].values()  # noqa: S506 - a safe loader
        found[path.parent.parent.name] = {
            name: option.get("type", "str")
            for point in points
            for name, option in point.get("options", {}).items()
        }
    return found


def variable_types(roles: Path) -> dict[str, str]:
    """Map every variable of every role to its type."""
    return {name: kind for role in known_variables(roles).values() for name, kind in role.items()}


def unknown_variables(names: Iterable[str], roles: str) -> list[str]:
    """Say of every variable that has a role's prefix and is none of its own what it may have meant.

    It is asked once a run, before roles have handed anything to each other.

    Args:
        names: the names of all variables a host has.
        roles: the directory of the roles.
    """
    known = known_variables(Path(roles))
    every = sorted(set().union(*known.values()))
    found = []
    for name in sorted(set(names) - set(every)):
        if any(name.startswith(f"{role}_") for role in known):
            close = difflib.get_close_matches(name, every, n=1)
            meant = f"did you mean {close[0]}?" if close else "see docs/roles"
            found.append(
                f"{name} is no variable of any role ({meant}). Correct or remove it in the "
                "inventory or after -e."
            )
    return found


def typed(names: Iterable[str], roles: str) -> list[str]:
    """List the variables among `names` that a role wants as anything but text."""
    types = variable_types(Path(roles))
    return sorted(name for name in names if types.get(name) in EXAMPLES)


def wrong_values(values: Mapping[str, Any], roles: str) -> list[str]:
    """Say which values cannot be what their role wants, before any task meets them.

    After `-e name=` stands text: a number or a truth value is converted where it is used, and a
    list or a mapping is not.

    Args:
        values: variable -> value.
        roles: the directory of the roles.
    """
    types = variable_types(Path(roles))
    found = []
    for name, value in values.items():
        kind = types[name]
        if kind in CONVERTED and not converts(CONVERTED[kind], value):
            found.append(f"{name} is {value!r}: give {EXAMPLES[kind]}.")
        elif kind not in CONVERTED and isinstance(value, str):
            found.append(
                f"{name} is text, which -e {name}=... always gives: say "
                f"""-e '{{"{name}": {EXAMPLES[kind]}}}', or set it in the inventory."""
            )
    return found


def converts(convert: Callable[[Any], object], value: object) -> bool:
    """Tell whether `convert` takes a value."""
    try:
        convert(value)
    except (TypeError, ValueError):
        return False
    return True


def renamed(name: str) -> list[str]:
    """Refuse a name that the command line gives: the inventory is what remembers its ports."""
    if "platform_name" not in load_extra_vars(DataLoader()):
        return []
    sentence = (
        f"platform_name={name} is given after -e, and one inventory is one platform: SYSTEM={name} "
        f"picks it, once `make new NAME={name}` wrote it, also for a platform that runs already."
    )
    return [sentence]


def obstacles(host: Mapping[str, Any], name: str, memory_mb: int, disk_mb: int) -> list[str]:
    """Say what a host lacks; memory and free disk in MiB.

    Args:
        host: the fact docker_host.
        name: what the inventory calls it.
        memory_mb: the least memory.
        disk_mb: the least free disk.
    """
    found = []
    if host["memory_mb"]["total"] < memory_mb:
        found.append(
            f"{name} has {host['memory_mb']['total']} MiB of memory and the platform needs "
            f"{memory_mb} (platform_memory_minimum): use a larger machine, or lower it at your own "
            "risk."
        )
    if host["disk_free_mb"] < disk_mb:
        found.append(
            f"{host['disk_path']} on {name} has {host['disk_free_mb']} MiB free and the platform "
            f"needs {disk_mb} (platform_disk_minimum): free some, `make prune` removes what "
            "nothing uses."
        )
    return found


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "platform_obstacles": obstacles,
            "platform_typed": typed,
            "platform_renamed": renamed,
            "platform_unknown_variables": unknown_variables,
            "platform_wrong_values": wrong_values,
        }
