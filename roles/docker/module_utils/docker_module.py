"""What the roles' modules stand on: a module that logs nothing, and the host's docker client."""

from __future__ import annotations

import subprocess

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):  # type: ignore[misc]  # ansible-core ships no types
    """An AnsibleModule that logs nothing: its arguments would reach the syslog as they came."""

    def log(self, msg: str, log_args: object = None) -> None:
        """Keep silent."""


class DockerError(Exception):
    """What the client was asked, and its own words on why it did not do that."""


def try_docker(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the docker client, whatever comes of it."""
    return subprocess.run(["docker", *words], capture_output=True, text=True, check=False)  # noqa: S603, S607 - the host's own client


def docker(*words: str) -> list[str]:
    """Run the docker client and return the lines it prints; raises DockerError where it fails."""
    done = try_docker(*words)
    if done.returncode:
        raise DockerError(f"docker {' '.join(words[:6])}: {done.stderr.strip()}")
    return done.stdout.splitlines()


def engine_answers() -> bool:
    """Tell whether there is a client and an engine behind it."""
    try:
        return try_docker("version", "--format", "{{.Server.Version}}").returncode == 0
    except FileNotFoundError:
        return False
