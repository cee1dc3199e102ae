"""The runs that ended well, and what differs between two of them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from dvc_runner.git import RunnerError, git
from dvc_runner.outputs import opened, outputs_in, shown_in
from dvc_runner.overrides import table
from dvc_runner.settings import Settings
from dvc_runner.state import read_json, write_json
from dvc_runner.tracking import leaves

REFS = "refs/runs"


def runs(at: Settings) -> list[dict[str, Any]]:
    """List the runs that are kept, the oldest first."""
    found: list[dict[str, Any]] = read_json(at.history).get("runs", [])
    return found


def is_kept(at: Settings, run: Mapping[str, Any]) -> bool:
    """Tell whether the last run that is kept was of the same project and parameters."""
    made_of = ("snapshot", "params", "set")
    return any(all(last[key] == run[key] for key in made_of) for last in runs(at)[-1:])


def add(at: Settings, run: Mapping[str, Any]) -> None:
    """Number a run and keep it, with its commit, which no branch holds for long."""
    # one that was broken off after this is gone on with by its name
    known = [entry for entry in runs(at) if entry["run"] != run["run"]]
    commit = git("rev-parse", "HEAD", at=at.project)
    numbered = {**run, "number": known[-1]["number"] + 1 if known else 1, "commit": commit}
    git("update-ref", f"{REFS}/{numbered['number']}", commit, at=at.project)
    write_json(at.history, {"runs": [*known, numbered]})


def note_tracked(at: Settings, told: Mapping[str, list[str]]) -> None:
    """Note the MLflow runs of runs, which may be known later than the runs."""
    changed = [{**run, "mlflow_runs": told.get(run["run"], run["mlflow_runs"])} for run in runs(at)]
    write_json(at.history, {"runs": changed})


def named(at: Settings, number: int) -> dict[str, Any]:
    """Return the run of a number."""
    for run in runs(at):
        if run["number"] == number:
            return run
    known = ", ".join(str(run["number"]) for run in runs(at)) or "none"
    raise RunnerError(f"Run {number} is not kept here (there are {known}): name one of those.")


def compare(at: Settings, numbers: list[str]) -> dict[str, Any]:
    """Return what differs between two runs, the last two unless `numbers` names them.

    A value is a pair, None where a run has none.
    """
    known = runs(at)
    if not numbers and len(known) < 2:  # noqa: PLR2004 - two
        raise RunnerError(
            f"There {'is one run' if known else 'is no run'} here that ended well, and a "
            "comparison takes two: run the pipeline again after a change."
        )
    if numbers and (len(numbers) != 2 or not all(number.isdecimal() for number in numbers)):  # noqa: PLR2004 - two
        raise RunnerError(
            f'RUNS="{" ".join(numbers)}" does not name two runs: give two of their numbers, such '
            'as RUNS="3 5".'
        )
    pair = [named(at, int(number)) for number in numbers] if numbers else known[-2:]
    with opened(at.project) as repo:
        values = {
            kind: [spelled_out(shown_in(repo, kind, run["commit"])) for run in pair]
            for kind in ("params", "metrics")
        }
        made = []
        for run in pair:
            with repo.switch(run["commit"]):
                made.append({out.path: out.md5 for out in outputs_in(repo)})
    answer: dict[str, Any] = {
        "runs": pair,
        **{kind: differing(*found) for kind, found in values.items()},
        "outputs": differing(*made),
    }
    return {**answer, "table": in_words(answer)}


def spelled_out(files: Mapping[str, Any]) -> dict[str, Any]:
    """Name each value by its file and key, as DVC does."""
    return {
        f"{path}:{name}": value
        for path, content in files.items()
        for name, value in leaves(content, "")
    }


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Pair what two mappings differ in, in the order in which they have it."""
    names = [*old, *(name for name in new if name not in old)]
    return {
        name: [old.get(name), new.get(name)]
        for name in names
        # NaN, which is no change, is not equal to itself
        if json.dumps(old.get(name), default=str) != json.dumps(new.get(name), default=str)
        or (name in old) != (name in new)
    }


def in_words(answer: Mapping[str, Any]) -> str:
    """Lay out a comparison for people."""
    old, new = (f"run {run['number']} {when(run['ended'])}" for run in answer["runs"])
    rows = []
    for kind in ("params", "metrics", "outputs"):
        for name, pair in answer[kind].items():
            cells = [cell[:12] if kind == "outputs" and cell else cell for cell in pair]
            rows.append([kind, name, *cells, change(*pair)])
    if not rows:
        return f"{old} and {new} have the same parameters, metrics and outputs."
    return table(["", "", old, new, "change"], rows)


def change(old: Any, new: Any) -> str:  # noqa: ANN401 - of any kind
    """Spell by how much a number changed."""
    numbers = all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in (old, new)
    )
    return f"{new - old:+.6g}" if numbers else ""


def when(milliseconds: int) -> str:
    """Spell a time for people."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(milliseconds / 1000))
