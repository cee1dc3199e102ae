"""What speaks against a run before a host is touched."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible import context

# what roles hand to each other while a playbook runs
HANDED = {
    "base_image_references",
    "container_service_declared",
    "container_service_spec",
    "docker_host",
    "dvc_runner_result",
    "minio_provisioned",
    "platform_admitted",
    "platform_converged",
}
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def known_variables(roles: Path) -> dict[str, set[str]]:
    """Map each role to the variables that its argument_specs document."""
    found: dict[str, set[str]] = {}
    for path in sorted(roles.glob("*/meta/argument_specs.yml")):
        points = yaml.load(path.read_text(), Loader=LOADER)["argument_specs"].values()  # noqa: S506 - a safe loader
        found[path.parent.parent.name] = {
            name for point in points for name in point.get("options", {})
        }
    return found


def unknown_variables(names: Iterable[str], roles: str) -> list[str]:
    """Say of every variable that has a role's prefix and is none of its own what it may have meant.

    Args:
        names: the names of all variables a host has.
        roles: the directory of the roles.
    """
    known = known_variables(Path(roles))
    every = sorted(set().union(*known.values()))
    found = []
    for name in sorted(set(names) - set(every) - HANDED):
        if any(name.startswith(f"{role}_") for role in known):
            close = difflib.get_close_matches(name, every, n=1)
            meant = f"did you mean {close[0]}?" if close else "see roles/*/defaults/main.yml"
            found.append(
                f"{name} is no variable of any role ({meant}). Correct or remove it in the "
                "inventory or after -e."
            )
    return found


def without_root(reach: Mapping[str, Any]) -> list[str]:
    """Say how root is had where this machine is to be changed, and this user cannot become root.

    Args:
        reach: how the host is reached: `connection`, `become`, `method` and whether there is a
            `password` to become root with.
    """
    wanted = reach["become"] or context.CLIARGS.get("become")
    asks = reach["password"] or context.CLIARGS.get("become_ask_pass")
    sudo_here = (reach["connection"], reach["method"]) == ("local", "sudo")
    if os.geteuid() == 0 or asks or not wanted or not sudo_here:
        return []
    if may_sudo():
        return []
    seen = "wants a password" if shutil.which("sudo") else "is not installed"
    sentence = (
        f"This needs root: you are uid {os.geteuid()} and sudo {seen}. Run as root, run `sudo -v` "
        "first, or add -K to be asked."
    )
    return [sentence]


def may_sudo() -> bool:
    """Tell whether sudo makes this user root without asking for anything."""
    sudo = shutil.which("sudo")
    if not sudo:
        return False
    done = subprocess.run([sudo, "-n", "true"], capture_output=True, check=False)  # noqa: S603 - fixed arguments
    return done.returncode == 0


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
            f"needs {disk_mb} (platform_disk_minimum): free some, `docker system prune` removes "
            "what no container uses."
        )
    return found


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "platform_obstacles": obstacles,
            "platform_unknown_variables": unknown_variables,
            "platform_without_root": without_root,
        }
