"""The chain from dvc.lock to the registry, read in the runner's container."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from platform_verify.evidence import CHUNK, TIMEOUT, Json, Reader, gather
from platform_verify.s3 import bucket_and_key, client_here, object_md5, outcome, reach

# last, for a project whose own packages lack them: botocore and PyYAML are among DVC's
sys.path += map(str, Path("/opt/dvc/lib").glob("python3*/site-packages"))
EACH = "pipelines"
WORKSPACE = Path("/workspace")
PROJECT = WORKSPACE / "project"
PULL_PREFIX = "verify-"
PULL_SECONDS = 800.0  # DVC takes some minutes for 20,000 files
RUNNER = ("dvc_runner",)
READ = 500
CHAIN = {"raw", "model", "metrics"}
STALE_SECONDS = 3600.0
RUNS_LOOKED_AT = 50
# they travel in one word of a command line, with the evidence itself: Linux takes 128 KiB
ROWS_COMPARED = 200
ROWS_BYTES = 60_000
CLIENT_SECONDS = 90
CLIENT = """
import json, sys
import mlflow, pandas
given = json.load(sys.stdin)
model = mlflow.sklearn.load_model(given["model"])
print(json.dumps(model.predict(pandas.DataFrame(**given["rows"])).tolist()))
"""


def run(*words: str, at: Path, env: Mapping[str, str] | None = None, timeout: float = 180) -> str:
    """Run a command and return what it prints; raises OSError with its last lines."""
    done = subprocess.run(  # noqa: S603 - words written in this file
        words,
        cwd=at,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    if done.returncode:
        tail = " ".join((done.stdout + done.stderr).split())[-300:]
        raise OSError(f"{' '.join(words[:2])} ended with code {done.returncode}: {tail}")
    return done.stdout


def git(*words: str, at: Path | None = None) -> str:
    """Run git, in the project unless elsewhere is named, and return what it prints."""
    return run("git", "-c", "safe.directory=*", *words, at=at or PROJECT).strip()


def file_md5(path: Path) -> str:
    """Return the md5 of a file."""
    digest = hashlib.md5()  # noqa: S324 - DVC's own
    with path.open("rb") as source:
        while block := source.read(CHUNK):
            digest.update(block)
    return digest.hexdigest()


def outputs(text: str) -> dict[str, str]:
    """Map every output in the text of a dvc.lock to its md5."""
    import yaml  # noqa: PLC0415 - there only

    stages = (yaml.safe_load(text) or {}).get("stages", {})
    return {
        out["path"]: out.get("md5", "")
        for stage in stages.values()
        for out in stage.get("outs", [])
    }


def locked(commit: str = "") -> dict[str, dict[str, str]]:
    """Map every dvc.lock, of a commit or of the work tree, to its outputs and their md5."""
    listing = ("ls-tree", "-r", "--name-only", commit) if commit else ("ls-files",)
    names = [name for name in git(*listing).splitlines() if Path(name).name == "dvc.lock"]
    texts = {
        name: git("show", f"{commit}:{name}") if commit else (PROJECT / name).read_text()
        for name in names
        if commit or (PROJECT / name).is_file()
    }
    return {name: outputs(text) for name, text in texts.items()}


@functools.cache
def made() -> list[Json]:
    """List what the last run made, as DVC says; raises where the pipeline has not run."""
    if not locked():
        raise FileNotFoundError("there is no dvc.lock: the pipeline has not run on this platform")
    return list(json.loads(run(*RUNNER, "outputs", at=WORKSPACE).splitlines()[-1]))


def md5_of(key: str) -> str:
    """Return the md5 that the key of an object in a DVC remote spells."""
    first, rest = key.split("/")[-2:]
    return first + rest


def settings() -> Json:
    """Return the project's config.yaml, empty where it has none."""
    import yaml  # noqa: PLC0415 - there only

    path = PROJECT / "config.yaml"
    return mapping(yaml.safe_load(path.read_text())) if path.is_file() else {}


def mapping(value: object) -> Json:
    """Return a mapping of a file that people write; whatever else stands there is none."""
    return value if isinstance(value, dict) else {}


def read_json(path: Path) -> Json:
    """Read a JSON object, empty where there is none."""
    return json.loads(path.read_text()) if path.is_file() else {}


def origin(commit: str) -> Json:
    """Tell which commit of the project's source a commit of the workspace is a run of."""
    subject = git("log", "-1", "--format=%s", commit)
    base = subject[len("Run of ") :] if subject.startswith("Run of ") else commit
    try:
        note = json.loads(git("log", "-1", "--format=%B", base))
        return {"source_commit": note["source_commit"], "dirty": note["dirty"]}
    except (ValueError, KeyError, TypeError):
        return {"source_commit": base, "dirty": False}


def ran_at() -> list[str]:
    """List the source commits that were run here with these very outputs, the newest first.

    A commit that changes nothing the pipeline reads makes no new MLflow run, so the run's commit
    may be an older one.
    """
    found: list[str] = []
    now = locked()
    for commit in list(dict.fromkeys(git("log", "--walk-reflogs", "--format=%H", "HEAD").split()))[
        :RUNS_LOOKED_AT
    ]:
        with contextlib.suppress(OSError):
            if locked(commit) == now:
                found.append(origin(commit)["source_commit"])
    return list(dict.fromkeys(found))


def is_running() -> bool:
    """Tell whether a run holds the workspace's lock."""
    path = WORKSPACE / "lock"
    if not path.is_file():
        return False
    with path.open() as held:
        try:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def changed() -> list[str]:
    """List what differs from the last run's commit; a file that no stage declares is nobody's."""
    return [
        line.strip() for line in git("status", "--porcelain", "--untracked-files=no").splitlines()
    ]


def workspace() -> Json:
    """Tell what the last run was made of, and what the project says of itself."""
    state = read_json(WORKSPACE / "state.json")
    if not state.get("done") and ("good" in state or (WORKSPACE / "unfinished.json").exists()):
        # what lies here is of no run, and may be half written
        return {"running": is_running(), "done": False, "unfinished": True}
    config = settings()
    paths, registry = mapping(config.get("paths")), mapping(config.get("mlflow"))
    there = bool(locked())
    rows = made() if there else []
    return {
        "running": is_running(),
        "done": bool(state.get("done")),
        "unfinished": False,
        "lock": there,
        "outputs": {row["path"]: row["md5"] for row in rows if row["md5"]},
        "stored": [row["path"] for row in rows if row["stored"]],
        "changed": sorted(set(changed()) - set(state.get("left", []))) if there else [],
        **(origin("HEAD") if there else {}),
        "ran_at": ran_at() if there else [],
        "paths": {key: paths[key] for key in ("raw", "model", "metrics") if key in paths},
        # whose files are not named cannot be compared with
        "registered_model": registry.get("registered_model", "") if paths.keys() >= CHAIN else "",
        "metrics": read_json(PROJECT / paths["metrics"]) if "metrics" in paths else {},
        "last_run": read_json(PROJECT / paths.get("last_run", "logs/last_run.json")),
        "platform": os.environ.get("PLATFORM_NAME", ""),
        "project": os.environ.get("RUNNER_PROJECT", ""),
    }


def stored_outputs() -> Json:
    """Look for every object of what DVC stores, and hash their bytes.

    Of many the store is asked for a list, and of what is left after the first READ objects the md5
    is believed that the store made of the bytes it took.
    """
    client = client_here()
    bucket, prefix = bucket_and_key(os.environ["RUNNER_REMOTE_URL"], "")
    wanted = {key: row["path"] for row in made() for key in row["objects"]}
    there = tags(client, bucket, prefix) if len(wanted) > READ else None
    size, wrong = 0, []
    for count, (name, path) in enumerate(wanted.items()):
        key, md5 = f"{prefix}{name}", md5_of(name)
        row: Json = {"path": path, "md5": md5, "bucket": bucket, "key": key}
        if there is None:
            code = outcome(lambda key=key: client.head_object(Bucket=bucket, Key=key))  # type: ignore[misc]
        else:
            code = "allowed" if key in there else "404"
        if code != "allowed":
            wrong.append({**row, "missing": code})
            continue
        plain = md5.removesuffix(".dir")
        if there is not None and count >= READ and there[key]["md5"] == plain:
            size += there[key]["size"]
            continue
        stored = object_md5(client, bucket, key)
        size += stored["size"]
        if stored["md5"] != plain:
            wrong.append({**row, "found": stored["md5"]})
    return {"objects": len(wanted), "size": size, "wrong": wrong[:ROWS_COMPARED]}


def tags(client: Any, bucket: str, prefix: str) -> dict[str, Json]:  # noqa: ANN401 - botocore's own
    """Map every object to its size, and the md5 of its bytes where the store keeps one."""
    return {
        entry["Key"]: {"size": entry["Size"], "md5": entry["ETag"].strip('"')}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for entry in page.get("Contents", ())
    }


def tracking(path: str, query: Mapping[str, str]) -> Json:
    """Ask the tracking server's REST API."""
    address = (
        f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/{path}?{urllib.parse.urlencode(query)}"
    )
    with urllib.request.urlopen(address, timeout=TIMEOUT) as reply:  # noqa: S310 - the platform's own server
        return dict(json.load(reply))


def tracked_run() -> Json:
    """Read the MLflow run of the last pipeline run, and what the registry says of its model."""
    run_id = workspace()["last_run"].get("run_id", "")
    if not run_id:
        raise LookupError(
            "no file of the project names an MLflow run: the pipeline has not run to its end"
        )
    found = tracking("runs/get", {"run_id": run_id})["run"]
    name = settings()["mlflow"]["registered_model"]
    versions = tracking("model-versions/search", {"filter": f"run_id='{run_id}'"}).get(
        "model_versions", []
    )
    aliases: dict[str, str] = {}
    if versions:
        entry = tracking("registered-models/get", {"name": name})["registered_model"]
        aliases = {row["alias"]: row["version"] for row in entry.get("aliases", [])}
    candidate = aliases.get("candidate", "")
    sources = []
    for row in versions:
        source = row.get("source", "")
        if source.startswith("models:/"):
            logged = tracking(f"logged-models/{source[len('models:/') :]}", {})["model"]["info"]
            source = logged["artifact_uri"]
        sources.append(source)
    data = found["data"]
    return {
        "run_id": run_id,
        "status": found["info"]["status"],
        "artifact_uri": found["info"]["artifact_uri"],
        "tags": {row["key"]: row["value"] for row in data.get("tags", [])},
        "metrics": {row["key"]: row["value"] for row in data.get("metrics", [])},
        "versions": [row["version"] for row in versions],
        "sources": sources,
        "aliases": aliases,
        "candidate_known": bool(candidate) and is_ours(name, candidate),
    }


def is_ours(name: str, version: str) -> bool:
    """Tell whether a model's version is of a run that this workspace made, or made again.

    A grid's last combination, or a repeated run, is registered after the run in force.
    """
    about = {"name": name, "version": version}
    run_id = tracking("model-versions/get", about)["model_version"].get("run_id", "")
    runs = read_json(WORKSPACE / "runs.json").get("runs", [])
    if any(run_id in entry.get("mlflow_runs", []) for entry in runs):
        return True
    tags = tracking("runs/get", {"run_id": run_id})["run"]["data"].get("tags", [])
    return any(row["key"] == "reproduces" for row in tags)


def lineage() -> list[Json]:
    """Read what the tracking server knows of each MLflow run of the last pipeline run."""
    found = []
    for run_id in read_json(WORKSPACE / "state.json").get("mlflow_runs", []):
        run = tracking("runs/get", {"run_id": run_id})["run"]
        tags = {row["key"]: row["value"] for row in run["data"].get("tags", [])}
        found.append({"run_id": run_id, "status": run["info"]["status"], "tags": tags})
    return found


def fitting(rows: Any) -> Any:  # noqa: ANN401 - a pandas.DataFrame, which is there only
    """Return as many of the first rows as a command line takes, at least one."""
    while len(rows) > 1 and len(json.dumps(rows.to_dict("split"))) > ROWS_BYTES:
        rows = rows.head(len(rows) // 2)
    return rows


def own_predictions() -> Json:
    """Predict rows of the test part with the pipeline's own file."""
    import joblib  # noqa: PLC0415 - there only
    import pandas as pd  # noqa: PLC0415

    paths = settings()["paths"]
    rows = fitting(pd.read_csv(PROJECT / paths["x_test"], nrows=ROWS_COMPARED))
    return {
        "own_md5": file_md5(PROJECT / paths["model"]),
        "rows": rows.to_dict("split"),
        "predicted": joblib.load(PROJECT / paths["model"]).predict(rows).tolist(),
    }


def registered_predictions(given: Mapping[str, Any]) -> list[Any]:
    """Predict the same with the registered model, as a client that knows one address."""
    home = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    address = given["tracking_uri"]
    try:
        done = subprocess.run(  # noqa: S603 - words written in this file
            [sys.executable, "-c", CLIENT],
            input=json.dumps({key: given[key] for key in ("model", "rows")}),
            env={**home, "MLFLOW_TRACKING_URI": address, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=CLIENT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(
            f"{given['model']} did not come from {address} within {CLIENT_SECONDS} s: its server "
            "names an address for the download that a client outside of the platform cannot reach"
        ) from error
    if done.returncode:
        raise OSError(f"{given['model']} of {address}: {' '.join(done.stderr.split())[-300:]}")
    return list(json.loads(done.stdout.splitlines()[-1]))


def as_the_remote() -> None:
    """Have S3 clients of this process mean the platform's remote, as those of stages do not."""
    for name in [*os.environ]:
        if name.startswith("AWS_") and name != "AWS_CA_BUNDLE":
            del os.environ[name]  # of the project's own
    for name, given in (
        ("ENDPOINT_URL_S3", "ENDPOINT"),
        ("SHARED_CREDENTIALS_FILE", "CREDENTIALS"),
    ):
        if value := os.environ.get(f"RUNNER_REMOTE_{given}"):
            os.environ[f"AWS_{name}"] = value
    os.environ["AWS_DEFAULT_REGION"] = "us-east-1"


def of_runner(given: Mapping[str, Any]) -> Json:
    """Read, in the runner's container, the chain from dvc.lock to the registry."""
    as_the_remote()
    return gather(
        {
            "workspace": workspace,
            "run": tracked_run,
            "lineage": lineage,
            "objects": stored_outputs,
            "reach": lambda: reach(given.get("buckets", {})),
        }
    )


def of_model(_given: Mapping[str, Any]) -> Json:
    """Read what the pipeline's model predicts; a place of its own, for its imports are slow."""
    return gather({"predictions": own_predictions})


def of_client(given: Mapping[str, Any]) -> Json:
    """Read what the registered `model` at `tracking_uri` predicts of `rows`."""
    return gather({"predictions": lambda: registered_predictions(given)})


def pull() -> Json:
    """Clone the project, pull with an empty cache, and hash what came; the clone is removed."""
    for old in WORKSPACE.glob(f"{PULL_PREFIX}*"):
        if time.time() - old.stat().st_mtime > STALE_SECONDS:  # a verdict that was killed
            shutil.rmtree(old, ignore_errors=True)
    expected = [row for row in made() if row["pulled"]]
    with tempfile.TemporaryDirectory(prefix=PULL_PREFIX, dir=WORKSPACE) as made_here:
        clone = Path(made_here) / "clone"
        git("clone", "--quiet", str(PROJECT), str(clone), at=WORKSPACE)
        local = (PROJECT / ".dvc" / "config.local").read_text()
        lines = [line for line in local.splitlines() if not line.startswith("site_cache_dir")]
        (clone / ".dvc" / "config.local").write_text("\n".join(lines))
        if expected:
            run(
                *(
                    "dvc",
                    "pull",
                    "--quiet",
                    "--remote",
                    "platform",
                    *(row["path"] for row in expected),
                ),
                at=clone,
                env={"DVC_SITE_CACHE_DIR": f"{made_here}/site", "AWS_MAX_ATTEMPTS": "2"},
                timeout=PULL_SECONDS,
            )
        missing = [row["path"] for row in expected if not (clone / row["path"]).exists()]
        wrong = [
            row["path"]
            for row in expected
            if row["path"] not in missing and came(clone / row["path"]) != wanted(row)
        ]
    return {"outputs": len(expected), "missing": missing, "wrong": wrong}


def came(path: Path) -> set[str]:
    """Hash a file, or each file of a directory."""
    files = path.rglob("*") if path.is_dir() else [path]
    return {file_md5(file) for file in files if file.is_file()}


def wanted(row: Mapping[str, Any]) -> set[str]:
    """Return what the files of an output are to hash to."""
    return {md5 for md5 in map(md5_of, row["objects"]) if not md5.endswith(".dir")}


def of_clone(_given: Mapping[str, Any]) -> Json:
    """Read what a fresh clone can pull."""
    as_the_remote()
    return gather({"pull": pull})


AT_ONCE: dict[str, Reader] = {"clone": of_clone, "model": of_model, "runner": of_runner}
# in a container of its own, with the host's network and no more
OUTSIDE: dict[str, Reader] = {"client": of_client}
