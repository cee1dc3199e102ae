"""uv, called where locks are made and where a project's own packages are installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from dvc_runner.git import RunnerError, without_passwords

# of packages that ask git for their version, which is not there where they are built
NO_VERSIONS = {
    "PDM_BUILD_SCM_VERSION": "0",
    "POETRY_DYNAMIC_VERSIONING_BYPASS": "0",
    "SETUPTOOLS_SCM_PRETEND_VERSION": "0",
}
MOST_WORDS = 700


def uv(*words: str, at: Path, about: str, env: Mapping[str, str] | None = None) -> str:
    """Run uv and return what it prints.

    Args:
        words: what it is to do.
        at: where.
        about: what can not be installed where it fails.
        env: variables to set on top.

    Raises:
        RunnerError: it is not here, or failed; with its own words.
    """
    beside = str(Path(sys.executable).parent)
    program = shutil.which("uv", path=f"{beside}{os.pathsep}{os.environ.get('PATH', '')}")
    if not program:
        raise RunnerError("uv is not on this machine, and it makes locks: `make .venv/run` has it.")
    index = os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL")
    done = subprocess.run(  # noqa: S603 - words written here
        [program, *words, "--quiet", "--no-progress"],
        cwd=at,
        capture_output=True,
        text=True,
        check=False,
        env={
            **{key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"},
            **({"UV_DEFAULT_INDEX": index} if index else {}),
            "UV_INDEX_STRATEGY": "unsafe-best-match",
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_SYSTEM_CERTS": os.environ.get("UV_SYSTEM_CERTS", "true"),
            "NO_COLOR": "1",
            "UV_PYTHON": sys.executable,
            **NO_VERSIONS,
            **(env or {}),
        },
    )
    if done.returncode:
        raise RunnerError(f"{about} can not be installed: {said_by(done.stderr)}")
    return done.stdout


def said_by(words: str) -> str:
    """Return what uv says of a failure, in one line and without passwords."""
    _, _, error = words.rpartition("error: ")
    lines = [re.sub(r"^\s*(cause:|hint:)?\s*", "", each) for each in error.splitlines()]
    told = [line for line in lines if line and not line.startswith("No solution found")]
    line = without_passwords(" ".join(told))
    return line if len(line) <= MOST_WORDS else f"{line[:MOST_WORDS]}..."
