"""From the inventory's pipeline projects to what each one's runner is and is asked for."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

# by file: so Ansible loads plugins
sys.path.insert(0, str(Path(__file__).parents[2] / "container_service" / "filter_plugins"))
from declaration import MEMORY

sys.path.insert(0, str(Path(__file__).parent.parent / "files" / "image"))
from dvc_runner.git import without_passwords
from dvc_runner.sources import is_address

IMAGE = Path(__file__).parent.parent / "files" / "image"
SERVICE = "dvc-runner"
# with the service's name before it, a container is to have a name too
NAME = re.compile(r"[a-z][a-z0-9-]{0,29}\Z")
# what an entry may say, and what holds where it does not
KEYS: Mapping[str, Any] = {
    "source": "",
    "ref": "",
    "token": "",
    "ssh_key": "",
    "host_key": "",
    "subdirectory": "",
    "pipeline": "",
    "dvc_config": "",
    "remote_ssh_key": "",
    "remote_host_key": "",
    "requirements": "",
    "system_packages": [],
    "params": {},
    "data": "",
    "data_params": {"source": "params.yaml:source", "sha256": "params.yaml:sha256"},
    "environment": {},
    "secrets": {},
    "memory": "",
    "gpus": 0,
    "timeout": "",
    "schedule": "",
}
# a cron expression: of each field its name, its least and its greatest, and names of values
FIELDS = (
    ("minute", 0, 59, ""),
    ("hour", 0, 23, ""),
    ("day of the month", 1, 31, ""),
    ("month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"),
    ("day of the week", 0, 7, "sun mon tue wed thu fri sat"),
)
PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/([0-9]{1,3}))?\Z", re.ASCII)
OFTEN = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
LONGEST = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def listed(
    entries: Mapping[str, Mapping[str, Any]], asked: str, given: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """List the projects of a platform, those whose runs are asked for marked as `chosen`.

    Args:
        entries: dvc_runner_projects.
        asked: dvc_runner_project: a name, a directory or a git URL; empty for every entry.
        given: what the role's variables say of any project, and of the run of a chosen one.

    Raises:
        AnsibleFilterError: an entry, or what is asked for, cannot be; one sentence.
    """
    known = {name: entry or {} for name, entry in entries.items()}
    chosen = [*known]
    same = [
        name
        for name, entry in known.items()
        if asked and place(entry.get("source")) == place(asked)
    ]
    if asked and asked not in known and same:
        chosen = same
    elif asked and asked not in known:
        known = {**known, ad_hoc_name(asked, known): {"source": asked}}
        chosen = [list(known)[-1]]
    elif asked:
        chosen = [asked]
    if wrong := [*faults(known, given), *sizes(known), *ambiguous(chosen, given)]:
        raise AnsibleFilterError(wrong[0])
    return [project(name, entry, given, name in chosen) for name, entry in known.items()]


def project(
    name: str, entry: Mapping[str, Any], given: Mapping[str, Any], chosen: bool
) -> dict[str, Any]:
    """Return one project with everything that its runner needs to know."""
    said = {**KEYS, **{key: value for key, value in entry.items() if value not in (None, "")}}
    return {
        **said,
        "name": name,
        "chosen": chosen,
        "service": f"{SERVICE}-{name}",
        "container": f"{given['platform']}-{SERVICE}-{name}",
        "params": {**said["params"], **(given["params"] if chosen else {})},
        "data": (given["data"] if chosen else "") or said["data"],
        "environment": {**given["environment"], **said["environment"]},
        "memory": said["memory"] or given["memory"],
        "timeout": said["timeout"] if said["timeout"] != "" else given["timeout"],  # 0 is no limit
    }


def place(source: object) -> str:
    """Return where a project is, the same for each way to spell a directory."""
    text = str(source or "")
    return text if is_address(text) else str(Path(text).expanduser().resolve())


def ad_hoc_name(asked: str, known: Iterable[str]) -> str:
    """Name a project after where it is.

    Raises:
        AnsibleFilterError: nothing is there, or no name comes of it.
    """
    if not is_address(asked) and not Path(asked).expanduser().is_dir():
        raise AnsibleFilterError(
            f"dvc_runner_project {asked} is no name in dvc_runner_projects (it has "
            f"{', '.join(known) or 'none'}), no directory on this machine and no git URL: "
            "correct it."
        )
    last = re.split(r"[/:]", asked.rstrip("/"))[-1].removesuffix(".git").lower()
    name = re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:30].rstrip("-")
    if not NAME.match(name) or name in known:
        raise AnsibleFilterError(
            f"dvc_runner_project {without_passwords(asked)} gives no name of its own "
            f"({name or 'nothing'} is "
            f"{'in dvc_runner_projects already' if name in known else 'none'}): give it an entry "
            "in dvc_runner_projects."
        )
    return name


def faults(known: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with entries."""
    for name, entry in known.items():
        where = f"dvc_runner_projects.{name}"
        if given["api"] and name == "api":
            yield f"{where} would be called as the runners' API is (dvc_runner_api): rename it."
        if not NAME.match(name):
            yield (
                f"{where} is no name for a project: use lower-case letters, digits and dashes, "
                "at most 30."
            )
        for key in entry:
            if key not in KEYS:
                yield f"{where} has {key}, which means nothing there: use {', '.join(KEYS)}."
        source = str(entry.get("source") or "")
        if not source:
            yield f"{where} has no source: give the directory or the git URL of the project."
        elif not is_address(source) and not Path(source).expanduser().is_dir():
            yield f"{where}.source {source} is no directory on this machine and no git URL."
        if wrong := unscheduled(entry.get("schedule")):
            yield (
                f"{where}.schedule is {entry['schedule']!r}, {wrong}: write a cron expression such "
                f"as '30 6 * * mon-fri' (minute, hour, day, month, weekday), or {', '.join(OFTEN)}."
            )


def sizes(known: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Say which memory of an entry is none that a container can be given."""
    for name, entry in known.items():
        memory = entry.get("memory")
        if memory not in (None, "") and not MEMORY.match(str(memory)):
            yield (
                f"dvc_runner_projects.{name}.memory is {memory!r}, which is no size: give one such "
                "as 512m or 4g."
            )


def unscheduled(said: object) -> str:
    """Say why a schedule names no times, or return an empty string."""
    if said in (None, "", *OFTEN):
        return ""
    words = said.split() if isinstance(said, str) else []
    if len(words) != len(FIELDS):
        return f"which has {len(words)} fields and not {len(FIELDS)}"
    times = []
    for word, (name, least, most, names) in zip(words, FIELDS, strict=True):
        times.append(found := values(word, least, most, names.split()))
        if not found:
            return f"whose {name} {word!r} is nothing from {least} to {most}"
    _, _, days, months, weekdays = times
    if len(weekdays) < 7 or any(min(days) <= LONGEST[month - 1] for month in months):  # noqa: PLR2004 - a week
        return ""
    return "a day that no such month has"


def values(word: str, least: int, most: int, names: list[str]) -> set[int]:
    """List what a field of a cron expression says, such as 1-5,7; nothing where it can not be."""
    numbers = {name: least + at for at, name in enumerate(names)}
    numbers |= {str(number): number for number in range(least, most + 1)}
    found: set[int] = set()
    for part in word.lower().split(","):
        known = PART.match(part)
        if not known:
            return set()
        low, high, step = known.groups()
        first = numbers.get(low.lstrip("0") or "0") if low else least
        last = numbers.get(high.lstrip("0") or "0") if high else first
        if not low or (step and not high):
            last = most
        if first is None or last is None or last < first or step == "0":
            return set()
        found |= set(range(first, last + 1, int(step or 1)))
    return found


def ambiguous(chosen: list[str], given: Mapping[str, Any]) -> Iterator[str]:
    """Say where what is given for one project would be given to several."""
    several = len(chosen) > 1
    for key in ("data", "params", "set", "grid"):
        if given[key] and several:
            yield (
                f"dvc_runner_{key} is for one project and {', '.join(chosen)} would be run: "
                "name one (PROJECT=...), or say it in its entry of dvc_runner_projects."
            )


def api_volumes(projects: Iterable[Mapping[str, Any]]) -> list[str]:
    """List what the API has of each project: its workspace to read, and its inbox."""
    return [
        "dvc-runner_queue:/queue:ro",
        *(f"{one['service']}:/projects/{one['name']}/workspace:ro" for one in projects),
        *(f"{one['service']}_inbox:/projects/{one['name']}/inbox" for one in projects),
    ]


def package(name: str) -> dict[str, str]:
    """Map the modules of a package of the runner's image to where they are, for another image."""
    found = sorted((IMAGE / name).rglob("*.py"))
    return {str(path.relative_to(IMAGE)): str(path) for path in found}


def gpu_devices(count: object) -> dict[str, Any]:
    """Return what Compose calls the reservation of a number of GPUs; nothing where it is 0."""
    if not int(str(count)):
        return {}
    devices = [{"driver": "nvidia", "count": int(str(count)), "capabilities": ["gpu"]}]
    return {"resources": {"reservations": {"devices": devices}}}


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "dvc_runner_api_volumes": api_volumes,
            "dvc_runner_gpus": gpu_devices,
            "dvc_runner_listed": listed,
            "dvc_runner_package": package,
        }
