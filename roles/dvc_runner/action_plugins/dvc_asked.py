"""Ask the runner of each project something, and show what it answers."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent))
# Ansible loads plugins by file, not by package
from dvc_pipeline import RunnerAction, explained, runner, seconds, told, words

from dvc_runner.git import RunnerError


class ActionModule(RunnerAction):
    """Arguments: projects (as the filter dvc_runner_listed returns them), words of the question.

    With `lenient` the question only looks: a project whose runner is not there, or cannot answer
    now, is told of, and no failure.
    """

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task; it changes what the question changes, and says so of none."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        answers: dict[str, Any] = {}
        errors: dict[str, str] = {}
        lenient = bool(self._task.args.get("lenient"))
        if self._task.check_mode and not lenient:
            return result | {"skipped": True, "skip_reason": "check mode asks nothing that may run"}
        for one in self._task.args["projects"]:
            name, container = one["name"], one["container"]
            asked = words(self._task.args["words"])
            if asked[:1] == ["reproduce"]:
                asked += ["--timeout", limit(one)]
            reply = self._on_host(shlex.join([*runner(container), *asked]))
            text, answers[name] = split(reply["stdout"])
            if reply["rc"] and not text:
                text = explained(container, (reply["stderr"] + reply["stdout"]).strip())
            # the inventory's, which no runner knows
            if asked == ["status"] and not reply["rc"] and (schedule := one.get("schedule")):
                text += f"; schedule {schedule}"
                answers[name] = {**answers[name], "schedule": schedule}
            Display().display(f"{name:<12} {text}" if "\n" not in text else f"{name}\n{text}\n")
            if reply["rc"] and not lenient:
                errors[name] = text
        if errors:
            raise AnsibleActionFail(told(errors))
        return result | {"changed": False, "answers": answers}


def limit(one: Mapping[str, Any]) -> str:
    """Return the seconds that a run of a project may take."""
    try:
        return str(seconds(one["timeout"]))
    except RunnerError as error:
        raise AnsibleActionFail(f"{one['name']}: {error}") from error


def split(said: str) -> tuple[str, Any]:
    """Split an answer into what a person reads and what a program does.

    That is JSON alone, with a text of its own if it has one, or JSON on the last line of a text.
    """
    before, _, last = said.rstrip("\n").rpartition("\n")
    for head, tail in (("", said), (before, last)):
        try:
            known = json.loads(tail)
        except ValueError:
            continue
        told_too = known.get("text", known.get("table")) if isinstance(known, Mapping) else None
        return head or str(told_too if told_too is not None else json.dumps(known, indent=2)), known
    return said.rstrip("\n"), None
