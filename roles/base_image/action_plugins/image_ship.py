"""Bring images from the engine of this machine to the engine of the task's host."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Arguments: references. Layers that several images share travel once."""

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        references = list(self._task.args["references"])
        if self._task.check_mode:
            return result | {"changed": True, "shipped": references}
        with tempfile.TemporaryDirectory(prefix="image-ship-") as local:
            archive = Path(local) / "images.tar"
            done = subprocess.run(  # noqa: S603 - references this play named
                ["docker", "save", "--output", str(archive), *references],  # noqa: S607 - from PATH
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise AnsibleActionFail(
                    f"docker save {' '.join(references)}: {done.stderr.strip()}"
                )
            size = archive.stat().st_size // 2**20
            Display().display(f"  shipping {len(references)} images, {size} MiB")
            self._make_tmp_path()
            remote = self._connection._shell.join_path(self._connection._shell.tmpdir, archive.name)
            self._transfer_file(str(archive), remote)
        command = f"docker load --quiet --input {shlex.quote(remote)}"
        reply = self._low_level_execute_command(command)
        self._remove_tmp_path(self._connection._shell.tmpdir)
        self._connection._shell.tmpdir = None
        if reply["rc"]:
            raise AnsibleActionFail(f"docker load on the host: {reply['stderr'].strip()}")
        return result | {"changed": True, "shipped": references}
