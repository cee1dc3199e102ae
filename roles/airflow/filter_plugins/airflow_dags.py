"""From what the inventory says of DAGs and settings to the files that Airflow reads."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

NAME = re.compile(r"[A-Za-z0-9_.-]{1,200}\Z")
KEYS = ("project", "description", "schedule", "stages_of")
OFTEN = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
FIELDS = 5  # of a cron expression
END = "push_and_record"  # the task after all stages


def listed(
    entries: Mapping[str, Mapping[str, Any]], projects: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, dict[str, Any]]:
    """Map each DAG to what its file is made of, those of projects with a schedule among them.

    Args:
        entries: airflow_dags.
        projects: airflow_projects; each with a `schedule` has a DAG that is called like it.

    Raises:
        AnsibleFilterError: an entry cannot be; one sentence.
    """
    found = {}
    for name, said in entries.items():
        entry = said or {}
        if wrong := next(faults(name, entry, projects), ""):
            raise AnsibleFilterError(wrong)
        path = str(entry.get("stages_of") or "")
        found[name] = {
            "project": entry["project"],
            "description": entry.get("description") or f"project {entry['project']}",
            "schedule": entry.get("schedule") or "",
            "stages": stages(path) if path else {},
        }
    for name, project in projects.items():
        schedule = (project or {}).get("schedule")
        if not schedule:
            continue
        if name in found:
            raise AnsibleFilterError(
                f"airflow_dags.{name} and the schedule of project {name} would be one DAG: rename "
                "the entry of airflow_dags, or give it the schedule."
            )
        found[name] = {
            "project": name,
            "description": f"project {name}, as often as its entry says",
            "schedule": schedule,
            "stages": {},
        }
    return found


def faults(
    name: str, entry: Mapping[str, Any], projects: Mapping[str, Mapping[str, Any] | None]
) -> Iterator[str]:
    """Say what is wrong with an entry of airflow_dags."""
    where = f"airflow_dags.{name}"
    if not NAME.match(name):
        yield f"{where} is no name for a DAG: use letters, digits, dashes, dots and underscores."
    for key in entry:
        if key not in KEYS:
            yield f"{where} has {key}, which means nothing there: use {', '.join(KEYS)}."
    if not entry.get("project"):
        yield f"{where} has no project: name the one that is run."
    elif projects and entry["project"] not in projects:
        yield (
            f"{where}.project is {entry['project']}, and there is no such project (there are "
            f"{', '.join(projects)}): correct it."
        )
    schedule = entry.get("schedule")
    words = str(schedule or "").split()
    if schedule and schedule not in OFTEN and len(words) != FIELDS:
        yield (
            f"{where}.schedule is {schedule!r}: write a cron expression such as '30 6 * * mon-fri' "
            f"(minute, hour, day, month, weekday), or {', '.join(OFTEN)}."
        )


def stages(path: str) -> dict[str, list[str]]:
    """Map each stage of a dvc.yaml to those whose outputs it reads, as the file writes them.

    Raises:
        AnsibleFilterError: it is none, or has no stages.
    """
    try:
        said = yaml.safe_load(Path(path).expanduser().read_text(encoding="utf-8"))
        known: Mapping[str, Any] = said["stages"]
        made = {name: paths(stage, ("outs", "metrics", "plots")) for name, stage in known.items()}
        read = {name: paths(stage, ("deps",)) for name, stage in known.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise AnsibleFilterError(
            f"stages_of names {path}, and no stages are found there "
            f"({' '.join(str(error).split())}): name a dvc.yaml of this machine."
        ) from error
    for name in known:
        if not NAME.match(str(name)) or name == END:
            raise AnsibleFilterError(
                f"stages_of names {path}, whose stage {name!r} cannot be a task: call it "
                "otherwise, by letters, digits, dashes, dots, underscores, or leave stages_of out."
            )
    return {
        name: [
            other
            for other in known
            if other != name and any(meet(out, dep) for out in made[other] for dep in read[name])
        ]
        for name in known
    }


def paths(stage: Mapping[str, Any], kinds: tuple[str, ...]) -> list[PurePosixPath]:
    """List the paths of a stage, or of a template of stages."""
    body = stage.get("do", stage)
    named = [each for kind in kinds for each in body.get(kind) or ()]
    # with what is said of it, a path is a key
    listed = [path for each in named for path in (each if isinstance(each, Mapping) else [each])]
    base = str(body.get("wdir") or ".")
    return [PurePosixPath(posixpath.normpath(posixpath.join(base, str(path)))) for path in listed]


def meet(one: PurePosixPath, other: PurePosixPath) -> bool:
    """Tell whether two paths are the same, or one lies in the other."""
    return one == other or one in other.parents or other in one.parents


def as_ini(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Write airflow.cfg, of which Airflow reads a per cent sign where two stand."""
    lines = []
    for section, options in sections.items():
        lines.append(f"[{section}]")
        lines += [
            f"{key} = {str(value).replace('%', '%%')}"
            for key, value in options.items()
            if value is not None
        ]
        lines.append("")
    return "\n".join(lines)


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {"airflow_dags_listed": listed, "airflow_ini": as_ini}
