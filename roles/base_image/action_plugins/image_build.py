"""Build images where Ansible's task runs, showing progress, and ship them where they are needed."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent.parent / "filter_plugins"))
from images import context_archive  # Ansible loads plugins by file, not by package

POLL_SECONDS = 2.0
HEARTBEAT_SECONDS = 30.0
WORDS = 4
TAIL = 500


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Hand the contexts to the build host and run the module of the same name there.

    Arguments beside the module's, but for images: builds, by name.
    """

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        builds: dict[str, Mapping[str, Any]] = arguments.pop("builds")
        if self._task.check_mode:
            source = next(iter(arguments["names"]))
            return result | {"changed": True, "base_source": source, "built": [*builds]}
        with tempfile.TemporaryDirectory(prefix="image-build-") as local:
            arguments["images"] = {
                name: self._deliver(Path(local) / f"{name}.tar", build)
                for name, build in builds.items()
            }
            return result | self._build(arguments, task_vars or {})

    def _deliver(self, path: Path, build: Mapping[str, Any]) -> str:
        """Put a build context on the build host and return its path there."""
        path.write_bytes(context_archive(build))
        if self._connection.transport == "local":
            return str(path)
        if self._connection._shell.tmpdir is None:
            self._make_tmp_path()
        remote = self._connection._shell.join_path(self._connection._shell.tmpdir, path.name)
        self._transfer_file(str(path), remote)
        return str(remote)

    def _build(self, arguments: Mapping[str, Any], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Run the module, and show its progress file while it runs.

        Raises:
            AnsibleActionFail: the module gave no answer; with the images and the host.
        """
        answer: dict[str, Any] = {}
        errors: list[BaseException] = []
        progress = f"{arguments['directory']}/progress"
        self._low_level_execute_command(f"rm -f {self._connection._shell.quote(progress)}")

        def work() -> None:
            try:
                answer.update(
                    self._execute_module(
                        module_name="image_build",
                        module_args=dict(arguments),
                        task_vars=dict(task_vars),
                    )
                )
            except BaseException as error:  # a thread has nobody else to tell
                errors.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        shown: list[str] = []
        spoke = time.monotonic()
        while thread.is_alive():
            thread.join(POLL_SECONDS)
            lines = self._progress_lines(progress)
            for line in lines[len(shown) :]:
                Display().display(f"  {line}")
                spoke = time.monotonic()
            shown = max(shown, lines, key=len)
            if time.monotonic() - spoke > HEARTBEAT_SECONDS and lines:
                Display().display(f"         ... {'; '.join(under_way(lines))}")
                spoke = time.monotonic()
        host = self._task.delegate_to or task_vars.get("inventory_hostname")
        names = under_way(shown) or [*arguments["images"]]
        end = (
            f"while these images were built ({'; '.join(names)}). What was built is kept: run again"
        )
        for error in errors:
            if isinstance(error, AnsibleConnectionFailure):
                # to remove it would fail too, in place of this, or take the contexts from the build
                self._connection._shell.tmpdir = None
                raise AnsibleActionFail(
                    f"The connection to {host} was lost {end}, also while the build still goes on "
                    f"there. What was said last: {error.message}"
                ) from error
            raise error
        if "module_stdout" in answer:  # no JSON
            said = f"{answer['module_stdout']}\n{answer.get('module_stderr', '')}".strip()
            raise AnsibleActionFail(
                f"The module that builds was killed on {host} (code {answer.get('rc')}) {end}; "
                "give the host more memory if it had too little. "
                f"It said: {said[-TAIL:] or 'nothing'}"
            )
        return answer

    def _progress_lines(self, path: str) -> list[str]:
        """Read the progress file on the build host; none where it cannot be read now."""
        if self._connection.transport == "local":
            try:
                return Path(path).read_text().splitlines()
            except OSError:
                return []
        # a file on another host has no other reader that does not wait for the module to end
        try:
            reply = self._low_level_execute_command(f"cat {self._connection._shell.quote(path)}")
        except AnsibleConnectionFailure:
            return []  # whether that ends the build is for the module's own connection to say
        return list(reply["stdout_lines"]) if reply["rc"] == 0 else []


def under_way(lines: list[str]) -> list[str]:
    """Return where each image stands that is not built yet, from lines `seconds s name text`."""
    last = {words[2]: words[3] for line in lines if len(words := line.split(None, 3)) == WORDS}
    return [f"{name}: {text}" for name, text in last.items() if not text.startswith("built")]
