"""Say in their own words what keeps containers of a platform from being healthy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_sick
short_description: Fail with what the containers that are not healthy say of themselves
description:
  - Asked once a project did not come up. What a container says is what its health check said last;
    where it has ended, the last line of its log; where it could not be started, why the engine
    could not.
  - One that was not started yet, or was stopped while a job ran, complains of nothing.
options:
  name: {description: The platform's name., type: str, required: true}
  compose: {description: What Compose said; it is told last., type: str, required: true}
"""

import json
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.docker_module import DockerError, QuietModule, docker, try_docker

LABEL = "mlops.platform"
MOST = 400
STOPPED = 143  # by SIGTERM: nothing that fails ends so


def last_line(text: str) -> str:
    """Return the last line that is not empty, as far as it can be read at once."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:MOST] if lines else ""


def complaint(container: Mapping[str, Any], log: str) -> str:
    """Return what is wrong with a container; empty where nothing is.

    Args:
        container: as `docker inspect` has it.
        log: the end of its log.
    """
    name, state = container["Name"].lstrip("/"), container["State"]
    health = state.get("Health") or {}
    if state["Status"] == "running" and health.get("Status", "healthy") == "healthy":
        return ""
    reason = last_line(state.get("Error", ""))
    if state["Status"] == "created" and not reason:
        return ""
    if state["Status"] == "exited" and state["ExitCode"] in (0, STOPPED) and not reason:
        return ""
    seen = f"{state['Status']}, code {state['ExitCode']}"
    said = reason or last_line(log)
    if state["Status"] == "running":
        seen = health["Status"]
        said = last_line((health.get("Log") or [{"Output": ""}])[-1]["Output"]) or said
    return f"{name} is {seen}: {said or 'it says nothing'}"


def look(name: str) -> list[str]:
    """Return what the containers of a platform complain of, one sentence each."""
    names = docker("ps", "--all", "--filter", f"label={LABEL}={name}", "--format", "{{.Names}}")
    found = []
    for each in names:
        logs = try_docker("logs", "--tail", "5", each)
        inspected = json.loads("\n".join(docker("inspect", each)))[0]
        found.append(complaint(inspected, logs.stdout + logs.stderr))
    return [sentence for sentence in found if sentence]


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "compose": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        said = look(module.params["name"])
    except DockerError as error:
        said = [str(error)]
    module.fail_json(msg="\n".join([*said, module.params["compose"]]))


if __name__ == "__main__":
    main()
