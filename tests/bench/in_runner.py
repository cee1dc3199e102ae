"""What `run.py` measures in a runner's container: ratios to `mc mirror` and to `dvc status`; JSON.

Arguments: a directory for what it makes, and where the runner's own package is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

PLACE, PACKAGE = Path(sys.argv[1]), sys.argv[2]
sys.path.insert(0, PACKAGE)
from dvc_runner.remote import missing_in_remote, place_of, s3_settings  # noqa: E402 - found there
from dvc_runner.settings import Settings, settings  # noqa: E402 - found there
from dvc_runner.state import read_json  # noqa: E402 - found there
from dvc_runner.transfer import bring, store  # noqa: E402 - found there

SETS = {"1 GiB": (1, 1 << 30), "5,000 files of 10 KB": (5000, 10_000)}
TRACKED = 20_000
STAGE = f"""\
stages:
  many:
    cmd: mkdir -p many; seq {TRACKED} | split -l 1 -a 5 - many/
    outs: [many]
"""
DVC = os.environ.get("RUNNER_DVC", "dvc")


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes once the disk is idle."""
    os.sync()
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def run(
    *words: str, at: Path = PLACE, given: str = "", env: Mapping[str, str] | None = None
) -> str:
    """Run a command that must succeed and return its output."""
    done = subprocess.run(
        words,
        cwd=at,
        env={**os.environ, **(env or {})},
        input=given,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{words[0]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def make(cache: Path, count: int, size: int) -> list[str]:
    """Write objects as DVC lays them out; returns their keys."""
    keys = []
    for _ in range(count):
        content = os.urandom(size)
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        keys.append(f"files/md5/{md5[:2]}/{md5[2:]}")
        (cache / keys[-1]).parent.mkdir(parents=True, exist_ok=True)
        (cache / keys[-1]).write_bytes(content)
    return keys


def transfers(at: Settings, count: int, size: int) -> dict[str, list[float]]:
    """Time push and pull of objects, here and by mc."""
    given, (bucket, _) = s3_settings(at), place_of(at)
    scheme, _, host = at.remote_endpoint.partition("://")
    keys_of = f"{given['access_key_id']}:{given['secret_access_key']}"
    mirror = (str(PLACE / "mc"), "--config-dir", str(PLACE / "mc-config"), "--quiet", "mirror")

    def by_mc(source: Path | str, target: Path | str) -> None:
        run(
            *mirror, str(source), str(target), env={"MC_HOST_bench": f"{scheme}://{keys_of}@{host}"}
        )

    name = f"bench-{time.time_ns()}"
    here = replace(at, workspace=PLACE / name, remote_url=f"s3://{bucket}/{name}-own")
    theirs, back = f"bench/{bucket}/{name}-mc", PLACE / name / "back"
    keys = make(here.cache, count, size)

    def push() -> None:
        store(here, missing_in_remote(here, keys))
        if missing_in_remote(here, keys):
            raise SystemExit("The push left something out.")

    taken = {"push": [seconds(lambda: by_mc(here.cache, theirs)), seconds(push)]}
    pulled = [seconds(lambda: by_mc(theirs, back / "mc"))]
    pulled += [seconds(lambda: bring(here, {key: back / "own" / key for key in keys}))]
    shutil.rmtree(PLACE / name)
    return {**taken, "pull": pulled}


def nothing_to_do(at: Settings) -> list[float]:
    """Time `dvc status`, and the runner's look whether a run is needed, of many tracked files."""
    project, work = PLACE / "tracked", PLACE / "tracked-workspace"
    project.mkdir()
    (project / "dvc.yaml").write_text(STAGE)
    runner = [sys.executable, "-I", f"{PACKAGE}/dvc_runner"]
    env = {"RUNNER_WORKSPACE": str(work), "RUNNER_SCRATCH": "", "RUNNER_QUEUE": ""}
    env["RUNNER_REMOTE_URL"] = f"{at.remote_url}/bench-tracked"
    run(*runner, "local", str(project), env=env)
    request = json.dumps({"snapshot": read_json(work / "state.json")["snapshot"]})

    def check() -> None:
        answer = json.loads(run(*runner, "check", given=request, env=env))
        if answer["needed"]:
            raise SystemExit(f"A run is needed where none should be: {answer['reason']}")

    def status() -> None:
        run(DVC, "status", "--quiet", at=work / "project")

    status()
    check()
    taken = [seconds(status), seconds(check)]
    shutil.rmtree(work)
    return taken


def main() -> None:
    """Measure what can be measured here."""
    at = settings(os.environ)
    found: dict[str, Any] = {"tracked": nothing_to_do(at)}
    if (PLACE / "mc").exists():
        found["transfers"] = {name: transfers(at, *of) for name, of in SETS.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
