"""Hold the queue of a platform's runners, and wait for the runs in work; or let it go on."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent))
from dvc_pipeline import ActionModule as Pipeline  # Ansible loads plugins by file, not by package
from dvc_pipeline import explained, runner

POLL_SECONDS = 3.0
TOLD_SECONDS = 60.0
# who waits says so again and again, so a queue is free soon after one that was killed
WAITING_SECONDS = 60
# for the rest: forgetting secrets, bringing everything up with others
CHANGING_SECONDS = 1800
# nothing is in work where no runner is; a shell and Docker say it so
ABSENT = ("No such container", "is not running", "not found", "connect to the Docker daemon")


class ActionModule(Pipeline):
    """Arguments: projects (as the filter dvc_runner_listed returns them), state, timeout.

    State `held` has no run begin from now on, and waits until none is in work; where that takes
    longer than `timeout` seconds it fails and the queue goes on. State `released` has it go on.
    """

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task; who waits in the queue loses nothing, so this is no change."""
        result: dict[str, Any] = ActionBase.run(self, tmp, task_vars)
        containers = [one["container"] for one in self._task.args["projects"]]
        if self._task.check_mode:
            return result | {"skipped": True, "skip_reason": "check mode holds no queue"}
        if self._task.args["state"] == "released":
            self._any(containers, "release")
        else:
            self._wait(containers, int(self._task.args["timeout"]))
        return result | {"changed": False}

    def _wait(self, containers: list[str], timeout: int) -> None:
        """Hold the queue until no run is in work; raises AnsibleActionFail after the time."""
        began, told, told_at = time.monotonic(), "", 0.0
        while in_work := self._any(containers, "hold", str(WAITING_SECONDS)).get("in_work"):
            left, now = began + timeout - time.monotonic(), time.monotonic()
            said = named(in_work)
            if left <= 0:
                self._any(containers, "release")
                raise AnsibleActionFail(refusal(said, in_work, timeout))
            if said != told or now > told_at + TOLD_SECONDS:
                Display().display(
                    f"  the queue is held; {said}: this waits for the end, {left:.0f} s at most"
                )
                told, told_at = said, now
            time.sleep(min(POLL_SECONDS, max(left, 0.1)))
        self._any(containers, "hold", str(CHANGING_SECONDS))

    def _any(self, containers: Iterable[str], *words: str) -> dict[str, Any]:
        """Ask the first runner that is there, for all share one queue; empty where none is."""
        for container in containers:
            reply = self._on_host(shlex.join([*runner(container), *words]))
            said = (reply["stderr"] + reply["stdout"]).strip()
            if not reply["rc"]:
                return dict(json.loads(reply["stdout"]))
            if "invalid choice" in said:
                raise AnsibleActionFail(
                    f"{container} is of an earlier release, whose queue cannot be held: "
                    "`make up` first."
                )
            if not any(each in said for each in ABSENT):
                raise AnsibleActionFail(explained(container, said))
        return {}


def named(in_work: Iterable[Mapping[str, Any]]) -> str:
    """Name the runs in work."""
    runs = [f"{one['project']} since {one['began']}" for one in in_work]
    return f"in work is {' and '.join(runs)}"


def refusal(said: str, in_work: Iterable[Mapping[str, Any]], timeout: int) -> str:
    """Say in a sentence why nothing is done, and what to do."""
    ends = ", ".join(f"`make cancel PROJECT={one['project']}`" for one in in_work)
    waited = f" still, after {timeout} s (dvc_runner_hold_timeout)" if timeout else ""
    return (
        f"Nothing was changed: {said}{waited}. Wait for the end or end it ({ends}), then try again."
    )
