"""Git, called so that nobody's settings and no hook's environment change what it does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

IDENTITY = {
    "GIT_AUTHOR_NAME": "dvc-runner",
    "GIT_AUTHOR_EMAIL": "dvc-runner@localhost",
    "GIT_COMMITTER_NAME": "dvc-runner",
    "GIT_COMMITTER_EMAIL": "dvc-runner@localhost",
    "GIT_CONFIG_NOSYSTEM": "1",
}
# another one's repository is read, and the program that it names for watching files is not started
ANYBODYS = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false")
# set by git for its hooks, and meant for the repository that the hook is of
ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX")

LOGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/@\s:]*)(:[^/@\s]*)?@", re.IGNORECASE)
TOKEN = re.compile(r"gh[a-z]_.*|github_pat_.*|glpat-.*|\w{30,}")
# what stands for a password where a token is the user
NO_PASSWORD = ("", ":", ":x-oauth-basic")


class RunnerError(Exception):
    """What went wrong, in one sentence with the name, the value seen and the next step."""


class TimeLimitError(BaseException):
    """The time for a run is over, in a sentence like those of RunnerError, which it is not: no step
    that can do without an answer goes on, and no library takes it for a failure of its own."""


def without_passwords(text: str) -> str:
    """Take the passwords, and tokens that are there as users, out of the addresses in a text."""
    return LOGIN.sub(hidden, text)


def hidden(found: re.Match[str]) -> str:
    """Spell the start of an address without its secret."""
    scheme, user, password = found[1], found[2], found[3] or ""
    if password in NO_PASSWORD:
        return f"{scheme}://{'***' if scheme.lower() in ('http', 'https') else user}@"
    if TOKEN.fullmatch(user):
        user = "***"
    return f"{scheme}://{user}:***@"


def git(
    *words: str,
    at: Path | None = None,
    env: Mapping[str, str] | None = None,
    given: str = "",
    timeout: float | None = None,
) -> str:
    """Run git on `given` and return what it prints; raises RunnerError with git's own message."""
    inherited = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    with subprocess.Popen(  # noqa: S603 - words written here
        ["git", *ANYBODYS, *(["-C", str(at)] if at else []), *words],  # noqa: S607 - from PATH
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",  # a file's name may be any bytes
        env={**inherited, **IDENTITY, **(env or {})},
        # without a terminal nothing below git can ask there; and all of that ends with it
        start_new_session=timeout is not None,
    ) as process:
        try:
            said, complaint = process.communicate(given, timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            complaint = f"took longer than {timeout:.0f} seconds"
            process.communicate()
    if process.returncode:
        raise RunnerError(f"git {words[0]} at {at or Path.cwd()}: {complaint.strip()}")
    return said.strip("\n")


def try_git(*words: str, at: Path) -> str:
    """Run git and return what it prints, or an empty string where it fails."""
    try:
        return git(*words, at=at)
    except RunnerError:
        return ""


def forget_dead_git_locks(repository: Path) -> None:
    """Remove locks that a killed git left; the caller knows that no other git works there."""
    for path in (*repository.glob("*.lock"), *repository.glob("refs/**/*.lock")):
        path.unlink()
