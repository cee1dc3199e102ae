"""Run one-shot services of a Compose project to their end."""

from __future__ import annotations

DOCUMENTATION = r"""
module: platform_jobs
short_description: Run one-shot services of a Compose project, one after the other, to a good end
description:
  - What waits for a job is stopped first, for it may use what the job changes.
  - A job that still runs, because the run that started it was interrupted, is waited for; it is run
    again only where it did not end well or is declared otherwise by now.
  - Its container stays, so that how it ended can be seen, and the next run knows that it did.
options:
  directory: {description: The project's directory., type: path, required: true}
  jobs:
    description: Each with C(service), C(container), C(digest) and C(waiting), services to stop.
    type: list
    elements: dict
    required: true
  timeout: {description: Seconds that each may take., type: int, default: 3600}
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.docker_module import DockerError, QuietModule, docker, try_docker

DIGEST = "mlops.digest"
LAST_LINES = 20
POLL_SECONDS = 0.3


class JobError(Exception):
    """Why a job did not end well, in one sentence, and its last lines."""


def state_of(container: str) -> dict[str, Any]:
    """Return status, exit code and digest of a container; status `absent` where there is none."""
    done = try_docker("inspect", container)
    if done.returncode:
        return {"status": "absent", "code": None, "digest": ""}
    found = json.loads(done.stdout)[0]
    return {
        "status": found["State"]["Status"],
        "code": found["State"]["ExitCode"],
        "digest": found["Config"]["Labels"].get(DIGEST, ""),
    }


def wait_for(container: str, deadline: float, timeout: int) -> dict[str, Any]:
    """Return the state of a container that has ended; raises JobError where it does not."""
    while (seen := state_of(container))["status"] in ("created", "running", "restarting"):
        if time.monotonic() > deadline:
            raise JobError(
                f"{container} has not ended within {timeout} s (platform_job_timeout). It goes on: "
                "run again to wait for it."
            )
        time.sleep(POLL_SECONDS)
    return seen


def run(directory: Path, job: Mapping[str, Any], timeout: int) -> None:
    """Run one job to its end, after one of its name that still runs: it may be in the middle.

    Raises:
        JobError: it did not start, did not end within `timeout` seconds, or ended with another
            code than 0.
    """
    container, compose = job["container"], ("compose", "--project-directory", str(directory))
    deadline, seen = time.monotonic() + timeout, state_of(container)
    if seen["status"] == "running":
        seen = wait_for(container, deadline, timeout)
    done = (seen["status"], seen["code"], seen["digest"]) == ("exited", 0, job["digest"])
    if not done:
        if job["waiting"]:
            docker(*compose, "stop", *job["waiting"])
        try_docker("rm", "--force", container)
        docker(*compose, "up", "--detach", "--no-deps", "--no-build", job["service"])
        seen = wait_for(container, deadline, timeout)
    if (seen["status"], seen["code"]) != ("exited", 0):
        logs = try_docker("logs", "--tail", str(LAST_LINES), container)
        raise JobError(
            f"{container} ended with code {seen['code']} ({seen['status']}); what waits for it was "
            f"not started. Its last lines:\n{(logs.stdout + logs.stderr).strip()}"
        )


def main() -> None:
    """Run the module."""
    module = QuietModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "jobs": {"type": "list", "elements": "dict", "required": True},
            "timeout": {"type": "int", "default": 3600},
        },
    )
    ended: list[str] = []
    for job in module.params["jobs"]:
        try:
            run(Path(module.params["directory"]), job, module.params["timeout"])
        except (JobError, DockerError) as error:
            module.fail_json(msg=str(error), ended=ended)
        ended.append(job["container"])
    module.exit_json(changed=bool(ended), ended=ended)


if __name__ == "__main__":
    main()
