"""Run a DVC project in the runner's container where that is needed, showing what it says."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent.parent / "files" / "image"))
import dvc_runner  # noqa: E402 - one implementation of snapshots, here and in the image

POLL_SECONDS = 1.0
RUN_TIMEOUT = 6 * 3600


class ActionModule(ActionBase):
    """Ask the runner whether a run is needed; if so hand over what it needs, start it and wait.

    Arguments: container, project (directory on this machine or git URL), params, data, data_params, force, cache.
    """

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = self._task.args
        try:
            request, deliveries = self._request(given)
        except dvc_runner.RunnerError as error:
            raise AnsibleActionFail(str(error)) from error
        state = self._ask("check", json.dumps(request))
        if self._task.check_mode or not state["needed"]:
            changed = bool(state["needed"])
            return result | {"changed": changed, "reason": state["reason"], "run": state}
        if state["running"]:
            Display().display("  a run is under way: following it")
        else:
            Display().display(f"  running the pipeline: {state['reason']}")
            self._deliver(deliveries, bool(state["known"]))
            self._start(request)
        answer = self._follow()
        if not answer["ok"]:
            raise AnsibleActionFail(f"{answer['error']}\nIts last lines:\n{answer.get('tail', '')}")
        return result | {"changed": True, "reason": state["reason"], "run": answer}

    def _request(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
        """Return what the runner is asked for, and the files it needs for that."""
        request: dict[str, Any] = {
            "params": given.get("params") or {},
            "force": bool(given.get("force")),
        }
        deliveries: dict[str, Path] = {}
        project = str(given["project"])
        if "://" in project or project.startswith("git@"):
            request["source"] = project
        else:
            snapshot = dvc_runner.make_snapshot(Path(project), Path(given["cache"]).expanduser())
            request["snapshot"] = snapshot["id"]
            deliveries["project.bundle"] = Path(snapshot["repository"])
        if data := given.get("data"):
            received: dict[str, Any] = {}
            path = Path(data).expanduser()
            if path.is_file():
                received = {"name": path.name, "sha256": file_digest(path)}
                deliveries[path.name] = path
            elif "/" in data and "://" not in data:
                raise AnsibleActionFail(
                    f"dvc_runner_data {data} is not a file on the machine that runs Ansible: name one that is, "
                    "a URL, or a source that the project knows."
                )
            request["data"] = dvc_runner.data_request(data, given["data_params"], received)
        return request, deliveries

    def _ask(self, *words: str, in_data: bytes | None = None) -> dict[str, Any]:
        """Run a subcommand of the runner in its container and return its JSON answer."""
        command = shlex.join(
            ["docker", "exec", "-i", self._task.args["container"], "dvc_runner", *words]
        )
        reply = self._low_level_execute_command(command, in_data=in_data)
        if reply["rc"]:
            raise AnsibleActionFail(
                f"{self._task.args['container']}: {reply['stderr'].strip() or reply['stdout'].strip()}"
            )
        answer: dict[str, Any] = json.loads(reply["stdout"] or "{}")
        return answer

    def _deliver(self, files: Mapping[str, Path], snapshot_known: bool) -> None:
        """Hand files over to the runner by way of the host."""
        with tempfile.TemporaryDirectory(prefix="dvc-pipeline-") as local:
            for name, path in files.items():
                source = path
                if name == "project.bundle":
                    if snapshot_known:
                        continue
                    source = Path(local) / name
                    dvc_runner.write_bundle({"repository": str(path)}, source)
                self._make_tmp_path()
                remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "input")
                self._transfer_file(str(source), remote)
                runner = shlex.join(
                    [
                        "docker",
                        "exec",
                        "-i",
                        self._task.args["container"],
                        "dvc_runner",
                        "receive",
                        name,
                    ]
                )
                reply = self._low_level_execute_command(f"{runner} < {shlex.quote(remote)}")
                self._remove_tmp_path(self._connection._shell.tmpdir)
                self._connection._shell.tmpdir = None
                if reply["rc"]:
                    raise AnsibleActionFail(
                        f"Handing {name} to the runner failed: {reply['stderr']}"
                    )

    def _start(self, request: Mapping[str, Any]) -> None:
        """Start a run that outlives this process and its connection."""
        if "snapshot" in request:
            request = {**request, "source": "/workspace/inputs/project.bundle"}
        container = self._task.args["container"]
        command = shlex.join(
            ["docker", "exec", "-d", container, "dvc_runner", "run", json.dumps(request)]
        )
        reply = self._low_level_execute_command(command)
        if reply["rc"]:
            raise AnsibleActionFail(
                f"The run could not be started in {container}: {reply['stderr']}"
            )

    def _follow(self) -> dict[str, Any]:
        """Show what the run says until it ends, and return its result."""
        offset, deadline, quiet = 0, time.monotonic() + RUN_TIMEOUT, 0
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            said = self._ask("progress", str(offset))
            offset = said["offset"]
            for line in said["lines"]:
                Display().display(f"  | {line}")
            if said["result"]:
                return dict(said["result"])
            # between the start and its first lock there is no run and no result yet
            quiet = 0 if said["running"] else quiet + 1
            if quiet > 10:  # noqa: PLR2004 - polls
                raise AnsibleActionFail(
                    f"The run in {self._task.args['container']} ended without a result: its container was stopped, or "
                    "it ran out of memory (dvc_runner_memory). Run again: finished stages are kept."
                )
        raise AnsibleActionFail(f"The run did not end within {RUN_TIMEOUT} s: see `make logs`.")


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as source:
        return dvc_runner.hashlib.file_digest(source, "sha256").hexdigest()
