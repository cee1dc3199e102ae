"""`make new`: write the inventory of a further platform, which has a name and ports of its own."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from platform_inventory.reason import reason

ROOT = Path(__file__).parents[2]
# where the role platform writes the Compose project of each
PROJECTS = Path("/opt")
OURS = "# Written by the role platform; the next run overwrites changes made here."
NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
STEP = 100
LAST_PORT = 65535
Variables = Mapping[str, Any]


def write(directory: Path, source: Path, variables: Variables) -> None:
    """Write an inventory with the hosts and variables of another one, and variables that win.

    Args:
        directory: the new inventory; its last part names the file of its own variables.
        source: the other one. Its hosts are copied, its variables linked: what it changes later
            changes here too.
        variables: what is this platform's own.
    """
    everywhere = directory / "group_vars" / "all"
    everywhere.mkdir(parents=True)
    shown = [path for path in source.iterdir() if not path.name.startswith(".")]
    for path in shown:
        if path.is_file():
            shutil.copyfile(path, directory / path.name)
        elif path.name != "group_vars":
            link(directory / path.name, path)
    for path in (source / "group_vars").iterdir():
        # Ansible reads a directory in the order of its names, and what comes later wins
        mine = everywhere / f"0-{source.name}" if path.name == "all" else directory / "group_vars"
        link(mine if path.name == "all" else mine / path.name, path)
    text = yaml.safe_dump(dict(variables), sort_keys=False, explicit_start=True)
    (everywhere / f"{directory.name}.yml").write_text(text, encoding="utf-8")


def link(at: Path, target: Path) -> None:
    """Link to a path so that both may be moved together."""
    at.symlink_to(os.path.relpath(target, at.parent))


def default_ports(groups: Iterable[str], root: Path = ROOT) -> dict[str, str]:
    """Map each port variable of the roles that are named as these groups to its default."""
    found: dict[str, str] = {}
    for group in groups:
        path = root / "roles" / group / "meta" / "argument_specs.yml"
        specs = yaml.safe_load(path.read_text())["argument_specs"] if path.is_file() else {}
        for name, option in specs.get("main", {}).get("options", {}).items():
            if name.endswith("_port"):
                found[name] = str(option.get("default", ""))
    return found


def listing(inventory: Path) -> dict[str, Any]:
    """Return what Ansible reads in an inventory.

    Raises:
        ValueError: it is none.
    """
    words = [str(Path(sys.executable).parent / "ansible-inventory"), "-i", str(inventory), "--list"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - own words
    if done.returncode:
        said = reason(done.stderr or done.stdout) or "it said nothing"
        raise ValueError(f"Ansible cannot read {inventory}: {said}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def of_hosts(listed: Variables) -> dict[str, Any]:
    """Return the variables of all hosts of an inventory."""
    return {
        name: value for host in listed["_meta"]["hostvars"].values() for name, value in host.items()
    }


def ports(listed: Variables, root: Path = ROOT) -> dict[str, str]:
    """Map each port variable of an inventory to its value, `port` or `address:port`."""
    said = of_hosts(listed)
    found = default_ports(listed, root)
    return {name: str(said.get(name, default)) for name, default in found.items()}


def number(port: str) -> int | None:
    """Return the number of a port; None where it is not published, or an expression."""
    last = port.rpartition(":")[2]
    return int(last) if last.isdecimal() else None


def free_here(port: int) -> bool:
    """Tell whether nothing on this machine listens on a port."""
    try:
        socket.create_server(("", port)).close()
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def moved(
    wanted: Mapping[str, str], taken: set[int], free: Callable[[int], bool]
) -> dict[str, str]:
    """Move all ports by the same number of hundreds to where none is taken.

    Raises:
        LookupError: there is no such place.
    """
    numbers = {name: found for name, port in wanted.items() if (found := number(port))}
    for step in range(STEP, LAST_PORT, STEP):
        there = {name: port + step for name, port in numbers.items()}
        usable = all(port <= LAST_PORT and port not in taken for port in there.values())
        if usable and all(free(port) for port in there.values()):
            return {
                name: wanted[name].removesuffix(str(numbers[name])) + str(there[name])
                for name in there
            }
    raise LookupError("No ports are free for all services at once: write the inventory by hand.")


def known(root: Path = ROOT) -> dict[str, Path]:
    """Map the name of every inventory of the project to its directory."""
    return {path.name: path for path in sorted((root / "inventory").iterdir()) if path.is_dir()}


def remains(name: str) -> str:
    """Name what already is on this machine under a platform's name; empty where nothing is."""
    if (PROJECTS / name).exists():
        return str(PROJECTS / name)
    labelled = f"com.docker.compose.project={name}"
    kinds = ("container", "volume", "network")
    return next((f"a {kind} of project {name}" for kind in kinds if listed(kind, labelled)), "")


def listed(kind: str, label: str) -> bool:
    """Tell whether the engine of this machine has something of a kind with a label."""
    docker = shutil.which("docker")
    words = [str(docker), kind, "ls", "--quiet", *(["--all"] if kind == "container" else [])]
    words += ["--filter", f"label={label}"]
    done = docker and subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - NAME's letters
    return bool(done and done.stdout.strip())


def published(name: str) -> dict[int, str] | None:
    """Map ports of the containers of a platform of this machine to where they are published.

    One whose volumes alone were kept publishes none. Returns None where there is no platform of
    that name, whatever else may have it.

    Raises:
        ValueError: its project cannot be read.
    """
    try:
        text = (PROJECTS / name / "compose.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        kept = not (PROJECTS / name).exists() and listed("volume", f"mlops.platform={name}")
        return {} if kept else None
    except OSError as error:
        raise ValueError(
            f"{error.filename} cannot be read ({error.strerror}), and the platform it may be of "
            f"would be taken over: `sudo make new NAME={name}`, then give what it wrote back with "
            f"`sudo chown -R $(id -un) inventory/{name} .venv`."
        ) from error
    if not text.startswith(f"{OURS}\nname: {name}\n"):
        return None
    services = yaml.safe_load(text)["services"].values()
    split = [port.rpartition(":") for each in services for port in each.get("ports") or []]
    return {int(inside): where for where, _, inside in split if inside.isdecimal()}


def refuse_beaten(own: Variables, directory: Path) -> None:
    """Raise a ValueError where a variable of an inventory's own is not what its hosts have."""
    seen = of_hosts(listing(directory))
    beaten = [name for name, value in own.items() if seen.get(name) != value]
    if beaten:
        raise ValueError(
            f"{', '.join(beaten)} is set for a host or a group, which wins over what a further "
            "platform says: move it to group_vars/all of the inventory that FROM names."
        )


def new(name: str, source: str, root: Path = ROOT) -> dict[str, Any]:
    """Write the inventory of a platform and return what is its own.

    A platform of that name which has no inventory, made when one could have several, is taken over
    with its ports and its secrets.

    Args:
        name: of the platform and of the inventory.
        source: the name of the inventory whose hosts and variables it takes over.
        root: the project.

    Raises:
        ValueError: it cannot be; the message says why and what to do.
    """
    inventories = known(root)
    if not NAME.fullmatch(name):
        raise ValueError(
            f"NAME={name} is no name for a platform: take a small letter, then small letters, "
            "digits and hyphens, 40 at most."
        )
    if source not in inventories:
        raise ValueError(f"FROM={source} is no inventory: {', '.join(inventories)} are there.")
    read = {} if name in inventories else {each: listing(inventories[each]) for each in inventories}
    names = {of_hosts(found).get("platform_name", "mlops"): each for each, found in read.items()}
    holder = name if name in inventories else names.get(name)
    if holder:
        raise ValueError(f"NAME={name} is taken by inventory/{holder}: choose another name.")
    hosts = read[source]["_meta"]["hostvars"].values()
    here = any(host.get("ansible_connection") == "local" for host in hosts)
    found = remains(name) if here else ""
    there = published(name) if found else {}
    if there is None:
        raise ValueError(
            f"NAME={name} is taken on this machine, by {found}: choose another name, or remove it."
        )
    taken = {
        used
        for each in read.values()
        for port in ports(each, root).values()
        if (used := number(port))
    }
    # each port variable's default is the port in its container
    had = {
        variable: there[inside]
        for variable, port in default_ports(read[source], root).items()
        if (inside := number(port)) in there
    }
    wanted = {each: port for each, port in ports(read[source], root).items() if each not in had}
    free = free_here if here else lambda _: True
    own = {"platform_name": name, **had, **moved(wanted, taken, free)}
    directory = root / "inventory" / name
    secrets = inventories[source] / ".secrets" / name
    try:
        write(directory, inventories[source], own)
        refuse_beaten(own, directory)
        if secrets.is_dir():
            (directory / ".secrets").mkdir(mode=0o700)
            secrets.rename(directory / ".secrets" / name)
    except BaseException:
        shutil.rmtree(directory)
        raise
    return own


def main(argv: Sequence[str] | None = None) -> int:
    """Write an inventory and say what is in it."""
    parser = argparse.ArgumentParser(prog="make new", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("source", nargs="?", default="local")
    given = parser.parse_args(argv)
    try:
        own = new(given.name, given.source)
    except (ValueError, LookupError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"inventory/{given.name} is written:")
    print("".join(f"  {name}: {value}\n" for name, value in own.items()), end="")
    print(f"Next: make up SYSTEM={given.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
