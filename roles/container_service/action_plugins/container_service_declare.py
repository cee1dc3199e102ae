"""Check a declaration and add it to those of its host, in the one process that a task costs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

sys.path.insert(0, str(Path(__file__).parent.parent / "filter_plugins"))
from declaration import declare  # Ansible loads plugins by file, not by package

SPECS = Path(__file__).parent.parent / "meta" / "argument_specs.yml"


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Arguments: spec (container_service_spec), declared (so far, by name), role (that declares).

    Sets the fact container_service_declared. It holds secrets, so what went well is not shown;
    what is wrong with a declaration is.
    """

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task; nothing reaches the host."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        given = self._task.args
        options = self._loader.load_from_file(str(SPECS))["argument_specs"]["declare"]["options"]
        errors = (
            ArgumentSpecValidator(options)
            .validate({"container_service_spec": given["spec"]}, validate_role_argument_spec=True)
            .error_messages
        )
        if errors:
            said = "\n".join(errors)
            return result | {"failed": True, "msg": said, "argument_errors": errors}
        declared = declare(given["declared"], given["spec"], given["role"])
        facts = {"container_service_declared": declared}
        return result | {"changed": False, "ansible_facts": facts, "_ansible_no_log": True}
