"""What speaks against a run before a host is touched."""

from __future__ import annotations

import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.parsing.dataloader import DataLoader
from ansible.utils.vars import load_extra_vars

# by file: so Ansible loads plugins
sys.path.insert(0, str(Path(__file__).parents[2] / "container_service" / "filter_plugins"))
from declaration import LAST_PORT, MEMORY, PORT

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# what text is not taken for as it is -> how it is written after -e, and what converts it
EXAMPLES = {
    "int": "a whole number, 0 or more",
    "bool": "true or false",
    "list": "[...]",
    "dict": "{...}",
}
KINDS: dict[str, type[Any]] = {"list": Sequence, "dict": Mapping}


def number(value: Any) -> int:  # noqa: ANN401 - whatever an inventory has
    """Return a whole number; how many or how long is never less than none."""
    found = int(value)
    if found < 0:
        raise ValueError(found)
    return found


# of a Compose project, of which directories and containers are named
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
CONVERTED = {"int": number, "bool": boolean}


@functools.cache
def known_variables(roles: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Map each role to the variables that its argument_specs document, each with its options."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        points = yaml.load(path.read_text(), Loader=LOADER)["argument_specs"].values()  # noqa: S506 - a safe loader
        found[path.parent.parent.name] = {
            name: option for point in points for name, option in point.get("options", {}).items()
        }
    return found


def options(roles: Path) -> dict[str, dict[str, Any]]:
    """Map every variable of every role to its options."""
    return {name: said for role in known_variables(roles).values() for name, said in role.items()}


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
    """List the variables among `names` that a role wants as anything but any text."""
    known = options(Path(roles))
    return sorted(
        name
        for name in names
        if name in known and (known[name].get("type") in EXAMPLES or form(name))
    )


def form(name: str) -> tuple[Callable[[str], bool], str] | None:
    """Return what tells whether a text can be what a variable's name says, and what to give."""
    if name.endswith("_port"):
        return is_port, f"a port of the host, 'port' or 'address:port', 1 to {LAST_PORT}"
    if name.endswith("_memory"):
        return lambda text: bool(MEMORY.match(text)), "a limit such as 512m or 2g"
    return None


def is_port(text: str) -> bool:
    """Tell whether a text is where a port may be published; nothing publishes none."""
    match = PORT.match(f"{text}:1")
    return not text or bool(match and 0 < int(match["host"]) <= LAST_PORT)


def wrong_values(values: Mapping[str, Any], roles: str) -> list[str]:
    """Say which values cannot be what their role wants, before any task meets them.

    After `-e name=` stands text: a number or a truth value is converted where it is used, and a
    list or a mapping is not. A list that has entries by default means nothing without any.

    Args:
        values: variable -> value.
        roles: the directory of the roles.
    """
    known = options(Path(roles))
    found = []
    for name, value in values.items():
        kind = known[name].get("type", "str")
        if kind in CONVERTED and not converts(CONVERTED[kind], value):
            found.append(f"{name} is {value!r}: give {EXAMPLES[kind]}.")
        elif kind in KINDS and isinstance(value, str):
            found.append(
                f"{name} is text, which -e {name}=... always gives: say "
                f"""-e '{{"{name}": {EXAMPLES[kind]}}}', or set it in the inventory."""
            )
        elif kind in KINDS and value is not None and not isinstance(value, KINDS[kind]):
            found.append(f"{name} is no {kind}: give {EXAMPLES[kind]}.")
        elif kind == "dict" and value is None and known[name].get("default") is not None:
            found.append(f"{name} is empty: give {EXAMPLES[kind]}, or leave it out.")
        elif kind == "list" and known[name].get("default") and not value:
            found.append(f"{name} is empty: give one entry or more, or leave it out.")
        elif kind == "str" and (said := form(name)):
            text = "" if value is None or value is False else str(value)
            if not said[0](text):
                found.append(f"{name} is {text!r}: give {said[1]}.")
        else:
            found += unknown_keys(name, value, known[name])
    return found


def unknown_keys(name: str, value: object, option: Mapping[str, Any]) -> Iterator[str]:
    """Say which keys of a variable's mappings none of its options is, and what each may have meant.

    Args:
        name: of the variable, and of the keys above.
        value: a mapping, or a list of them.
        option: as argument_specs describe it.
    """
    known = option.get("options", {})
    entries: list[Any] = value if isinstance(value, list) else [value]
    for entry in entries if known else []:
        for key in entry if isinstance(entry, Mapping) else []:
            if key in known:
                # what has no options is left alone: it may be a secret that nobody made yet
                if "options" in known[key]:
                    yield from unknown_keys(f"{name}.{key}", entry[key], known[key])
                continue
            close = difflib.get_close_matches(str(key), known, n=1)
            meant = f"did you mean {close[0]}?" if close else f"it takes {', '.join(known)}"
            yield f"{name} has a key {key!r} that means nothing ({meant}): correct or remove it."


def converts(convert: Callable[[Any], object], value: object) -> bool:
    """Tell whether `convert` takes a value."""
    try:
        convert(value)
    except (TypeError, ValueError):
        return False
    return True


def misnamed(name: object) -> list[str]:
    """Refuse a name that containers and directories cannot have, or that the command line gives.

    The inventory is what remembers a platform's ports.
    """
    if "platform_name" in load_extra_vars(DataLoader()):
        said = (
            f"platform_name={name} is given after -e, and one inventory is one platform: "
            f"SYSTEM={name} picks it, once `make new NAME={name}` wrote it, also for a platform "
            "that runs already."
        )
    elif not isinstance(name, str) or not NAME.fullmatch(name):
        said = (
            f"platform_name is {name!r}: give small letters, digits, hyphens and underscores, a "
            "letter or digit first, 63 at most."
        )
    else:
        return []
    return [said]


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
            "platform_misnamed": misnamed,
            "platform_unknown_variables": unknown_variables,
            "platform_wrong_values": wrong_values,
        }
