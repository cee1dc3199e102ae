"""Hold the queue of a platform's runners, and wait for the runs in work; or let it go on."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent))
# Ansible loads plugins by file, not by package
from dvc_pipeline import RunnerAction, explained, holder, is_away, is_dead, runner

POLL_SECONDS = 3.0
TOLD_SECONDS = 60.0
# who waits says so again and again, so a queue is free soon after one that was killed
WAITING_SECONDS = 60
# for the rest: forgetting secrets, bringing everything up with others
CHANGING_SECONDS = 1800
# a shell's words, and its code: Docker says the same of a program that a container lacks
NO_DOCKER, NO_DOCKER_CODE = re.compile(r"docker: (command )?not found"), 127
NO_ENGINE = re.compile(r"Cannot connect to the Docker daemon|failed to connect to the docker API")


class ActionModule(RunnerAction):
    """Arguments: projects (as the filter dvc_runner_listed returns them), state; and of `held`
    declared (the names in dvc_runner_projects), image (dvc_runner_image) and timeout.

    State `held` has no run begin from now on, and waits until none is in work; where that takes
    longer than `timeout` seconds it fails and the queue goes on. It fails at once where another
    `ansible-playbook` holds the queue. State `released` has it go on.
    """

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task; who waits in the queue loses nothing, so this is no change."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self._holder = holder()
        containers = {one["name"]: one["container"] for one in self._task.args["projects"]}
        if self._task.check_mode:
            return result | {"skipped": True, "skip_reason": "check mode holds no queue"}
        if self._task.args["state"] == "released":
            self._any(containers.values(), "release", self._holder)
            until = 0.0
        else:
            until = self._wait(containers, int(self._task.args["timeout"]))
        return result | {"changed": False, "if_it_fails_later": left_held(until) if until else ""}

    def _wait(self, containers: Mapping[str, str], timeout: int) -> float:
        """Hold the queue until no run is in work; returns until when it is held then.

        Raises:
            AnsibleActionFail: the time has passed, or another rotation holds it.
        """
        began, told, told_at = time.monotonic(), "", 0.0
        while in_work := self._hold(containers, WAITING_SECONDS).get("in_work"):
            left, now = began + timeout - time.monotonic(), time.monotonic()
            said = named(in_work)
            if left <= 0:
                self._any(containers.values(), "release", self._holder)
                ends = [ending(one, containers, self._task.args["declared"]) for one in in_work]
                raise AnsibleActionFail(refusal(said, ends, timeout))
            if said != told or now > told_at + TOLD_SECONDS:
                Display().display(
                    f"  the queue is held; {said}: this waits for the end, {left:.0f} s at most"
                )
                told, told_at = said, now
            time.sleep(min(POLL_SECONDS, max(left, 0.1)))
        return float(self._hold(containers, CHANGING_SECONDS).get("until", 0))

    def _hold(self, containers: Mapping[str, str], seconds: int) -> dict[str, Any]:
        """Hold the queue for so long, whose holder may have died; returns the runner's answer.

        Raises:
            AnsibleActionFail: another rotation holds it, or this one was killed, which a task
                outlives: it is a session of its own.
        """
        if holder() != self._holder:
            raise AnsibleActionFail("The ansible-playbook that this is a task of was killed.")
        words = ("hold", str(seconds), self._holder)
        answer = self._any(containers.values(), *words)
        if answer and is_dead(answer["by"]):
            self._any(containers.values(), "release", answer["by"])
            answer = self._any(containers.values(), *words)
        if answer and answer["by"] != self._holder:
            raise AnsibleActionFail(taken(answer["by"], answer["until"]))
        return answer

    def _any(self, containers: Iterable[str], *words: str) -> dict[str, Any]:
        """Ask the first runner that answers, for all share one queue; empty where none is there.

        Raises:
            AnsibleActionFail: none answers and one may be there, or one is of an earlier release.
        """
        complaint = ""
        for container in containers:
            reply = self._on_host(shlex.join([*runner(container), *words]))
            said = (reply["stderr"] + reply["stdout"]).strip()
            if not reply["rc"]:
                return dict(json.loads(reply["stdout"]))
            if "invalid choice" in said:
                raise AnsibleActionFail(
                    outdated(container, str(self._task.args.get("image") or ""))
                )
            if not is_absent(int(reply["rc"]), said):
                complaint = complaint or explained(container, said)
        if complaint:
            raise AnsibleActionFail(complaint)
        return {}


def is_absent(code: int, said: str) -> bool:
    """Tell whether there is no runner; who is not allowed to ask does not know that."""
    no_docker = code == NO_DOCKER_CODE and NO_DOCKER.search(said)
    return is_away(said) or bool(NO_ENGINE.search(said) or no_docker)


def outdated(container: str, image: str) -> str:
    """Say what to do with a runner that knows no hold; `image` is the user's own, if it is one."""
    mend = f"build dvc_runner_image ({image}) anew from this release, then " if image else ""
    return (
        f"{container} is of an earlier release, whose queue cannot be held: {mend}`make up`, then "
        "try again."
    )


def taken(by: str, until: float) -> str:
    """Say in a sentence that another rotation goes on."""
    process = ":".join(by.split(":")[:2])
    return (
        f"Nothing was changed: another rotation (host and process {process}) has the queue held, "
        f"until {clock(until)} if it says no more: wait for its end, then try again."
    )


def left_held(until: float) -> str:
    """Say what stays of a rotation that fails from here on, and what ends it."""
    return (
        f"No run begins until {clock(until)}: the rotation has the queue held. `make up` has what "
        "waits begin, unless it is told to leave the pipeline out; so does another `make rotate`."
    )


def clock(at: float) -> str:
    """Spell a time of today."""
    return time.strftime("%H:%M:%S UTC", time.gmtime(at))


def named(in_work: Iterable[Mapping[str, Any]]) -> str:
    """Name the runs in work."""
    runs = [f"{one['project']} since {one['began']}" for one in in_work]
    return f"in work is {' and '.join(runs)}"


def refusal(said: str, ends: Iterable[str], timeout: int) -> str:
    """Say in a sentence why nothing is done, and what to do: wait, or what `ends` the runs."""
    way_out = ", ".join(dict.fromkeys(ends))
    waited = f" still, after {timeout} s (dvc_runner_hold_timeout)" if timeout else ""
    return (
        f"Nothing was changed: {said}{waited}. Wait for the end or end it ({way_out}), then try "
        "again."
    )


def ending(one: Mapping[str, Any], containers: Mapping[str, str], declared: Iterable[str]) -> str:
    """Say what ends a run: one that has no request goes on in its container, whoever interrupts.

    Args:
        one: what its runner tells of it.
        containers: by their projects.
        declared: names in dvc_runner_projects; no verb knows another project by its name.
    """
    name = one["project"]
    if one["asked"] and name in declared:
        return f"`make cancel PROJECT={name}`"
    if one["asked"]:
        return f"`make cancel PROJECT=` with the directory or address that {name} was begun with"
    if name not in containers:
        return f"the `make reproduce` of {name} ends by itself alone"
    return f"the `make reproduce` of {name} is ended by `docker restart {containers[name]}`"
