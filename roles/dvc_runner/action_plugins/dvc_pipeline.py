"""Run a DVC project in the runner's container where that is needed, showing what it says."""

from __future__ import annotations

import hashlib
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
import dvc_runner  # one implementation of snapshots, here and in the image

POLL_SECONDS = 1.0
RUN_TIMEOUT = 6 * 3600


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Ask the runner whether a run is needed; if so hand over what it needs, start it and wait.

    Arguments: container, project (directory on this machine or git URL), params, data, data_params,
    force, cache.
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
        changed = bool(answer["changed"])
        return result | {"changed": changed, "reason": state["reason"], "run": answer}

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
                    f"dvc_runner_data {data} is not a file on the machine that runs Ansible: "
                    "name one that is, a URL, or a source that the project knows."
                )
            request["data"] = dvc_runner.data_request(data, given["data_params"], received)
        return request, deliveries

    def _ask(self, *words: str) -> dict[str, Any]:
        """Run a subcommand of the runner in its container and return its JSON answer."""
        reply = self._on_host(shlex.join([*self._runner(), *words]))
        if reply["rc"]:
            said = (reply["stderr"] + reply["stdout"]).strip()
            raise AnsibleActionFail(f"{self._task.args['container']}: {said}")
        answer: dict[str, Any] = json.loads(reply["stdout"] or "{}")
        return answer

    def _runner(self, *options: str) -> list[str]:
        """Return the start of a command that the runner carries out in its container."""
        return ["docker", "exec", *options, self._task.args["container"], "dvc_runner"]

    def _on_host(self, command: str) -> dict[str, Any]:
        """Run a command on the host.

        With input to read SSH gives it no terminal, which would mix its two outputs.
        """
        return dict(self._low_level_execute_command(command, in_data=b"\n"))

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
                receive = shlex.join([*self._runner("-i"), "receive", name])
                reply = self._on_host(f"{receive} < {shlex.quote(remote)}")
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
        self._ask("clear")
        reply = self._on_host(shlex.join([*self._runner("-d"), "run", json.dumps(request)]))
        if reply["rc"]:
            raise AnsibleActionFail(f"The run could not be started: {reply['stderr']}")

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
                    f"The run in {self._task.args['container']} ended without a result: its "
                    "container was stopped, or it ran out of memory (dvc_runner_memory). "
                    "Run again: finished stages are kept."
                )
        raise AnsibleActionFail(f"The run did not end within {RUN_TIMEOUT} s: see `make logs`.")


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
