"""What the tracking server is told of a pipeline run, with no line of code in the project."""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError
from dvc_runner.installed import installed
from dvc_runner.mlflow_context.dvc_runner_context import tag
from dvc_runner.outputs import Output, inputs_in, opened, plots_in, shown
from dvc_runner.settings import Settings
from dvc_runner.state import locks, read_json, write_json
from dvc_runner.workspace import lineage, stage_secrets

CONTEXT = Path(__file__).parent / "mlflow_context"
RUN = "dvc_run"  # the tag that holds a run's own name
BY_RUNNER = "dvc_runner"  # the value of MLflow's source name where no stage logged the run
TIMEOUT = 20.0
AT_ONCE = 100  # parameters in one request, at most, for MLflow
MOST = {"param": 500, "tag": 5000}  # characters of a value that every server takes
PUBLIC = "mlflow-artifacts:"


def stage_environment(at: Settings, commit: str, run: str, reproduces: str = "") -> dict[str, str]:
    """Return the variables that a stage has besides those of the container.

    Args:
        at: the settings.
        commit: the snapshot.
        run: the name of the run.
        reproduces: the name of the run that this one is to be the same as.
    """
    told = lineage(at, commit)
    tags = {
        RUN: run,
        "project": at.name,
        "git_commit": told["PIPELINE_GIT_COMMIT"],
        "git_dirty": told["PIPELINE_GIT_DIRTY"],
        "git_snapshot": commit,
        # MLflow would name the commit that is checked out, which nobody else has
        "mlflow.source.git.commit": told["PIPELINE_GIT_COMMIT"],
        "platform": os.environ.get("PLATFORM_NAME") or "local",
    }
    if reproduces:
        tags["reproduces"] = reproduces
    if lock := installed(at).get("digest"):
        tags["environment_lock"] = lock
    secrets = stage_secrets(at)
    own = secrets.get("PYTHONPATH") or os.environ.get("PYTHONPATH", "")
    found = {
        **secrets,
        **told,
        "DVC_RUNNER_TAGS": json.dumps(tags),
        # isolated: what a stage tells its Python is not for the runner's
        "DVC_RUNNER_COMMAND": json.dumps([sys.executable, "-I", str(Path(__file__).parent)]),
        # at the end, so that nothing of the project is hidden
        "PYTHONPATH": os.pathsep.join(filter(None, [own, str(CONTEXT)])),
    }
    if not {"MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"} & {*os.environ, *secrets}:
        found["MLFLOW_EXPERIMENT_NAME"] = at.name
    return found


def note_run(at: Settings, commit: str, run: Mapping[str, Any], outputs: Iterable[Output]) -> None:
    """Keep what there is to tell of a run until the tracking server has it.

    Args:
        at: the settings.
        commit: the snapshot.
        run: its name as `id`, and when it `began` and `ended` in milliseconds.
        outputs: those of the project.
    """
    place = at.untracked / run["id"]
    shutil.rmtree(place, ignore_errors=True)
    with opened(at.project) as repo:
        deps, plots = inputs_in(repo), plots_in(repo)
    told = json.loads(stage_environment(at, commit, run["id"])["DVC_RUNNER_TAGS"])
    files = {out.path: at.project / out.path for out in outputs if out.metric and out.inside}
    files |= {path: at.project / path for path in (*locks(at), *plots)}
    for name, path in files.items():
        copy = place / "artifacts" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, copy, dirs_exist_ok=True)
        elif path.is_file():
            shutil.copyfile(path, copy)
    tags = {
        **told,
        **{tag("dep_md5", path): md5 for path, md5 in deps.items()},
        **{tag("out_md5", out.path): out.md5 for out in outputs if out.md5},
        "environment": environment(),
        "mlflow.source.name": BY_RUNNER,
        "mlflow.user": "dvc-runner",
    }
    write_json(
        place / "run.json",
        {
            **run,
            "tags": tags,
            "params": flat(shown(at.project, "params"), "params.yaml"),
            "metrics": {
                key: value
                for key, value in flat(shown(at.project, "metrics"), "").items()
                if isinstance(value, (int, float)) and not isinstance(value, bool)
            },
        },
    )


def environment() -> str:
    """Return the digest of the packages of the Python that stages find, empty without one."""
    with contextlib.suppress(OSError):
        done = subprocess.run(  # noqa: S603 - words written here
            ["python", str(CONTEXT / "dvc_runner_context.py")],  # noqa: S607 - as a stage finds it
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout.strip() if done.returncode == 0 else ""
    return ""


def leaves(value: Any, above: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - as read
    """Name each value in nested mappings as `a.b`."""
    if isinstance(value, Mapping) and value:
        for key, below in value.items():
            yield from leaves(below, f"{above}.{key}" if above else str(key))
    else:
        yield above or "value", value


def flat(files: Mapping[str, Any], plain: str) -> dict[str, Any]:
    """Spell values of files as `a.b`, with the file before it where two files have that.

    Those of the file `plain` are never spelled with it.
    """
    spelled = {path: dict(leaves(content, "")) for path, content in files.items()}
    names = [name for found in spelled.values() for name in found]
    return {
        name if path == plain or names.count(name) == 1 else f"{path}:{name}": value
        for path, found in spelled.items()
        for name, value in found.items()
    }


def tell(at: Settings, say: Callable[[str], None]) -> dict[str, list[str]]:
    """Tell the tracking server of every run that it does not know yet, but for those of projects
    that log runs themselves; returns the MLflow runs of each.

    A server that is down, or refuses, is said in one sentence, and told at the next run.
    """
    told: dict[str, list[str]] = {}
    for place in sorted(at.untracked.glob("*/"), key=lambda path: path.stat().st_mtime):
        run = read_json(place / "run.json")
        if run and at.tracking_uri.startswith("http"):
            try:
                told[run["id"]] = logged_by_stages(at, run) or [log(at, run, place)]
            except (OSError, ValueError, KeyError) as error:
                say(
                    f"MLflow at {without_password(at.tracking_uri)} did not take this run "
                    f"({reason(error)}): the outputs are kept and pushed, and the next "
                    "`make pipeline` records it."
                )
                return told
        shutil.rmtree(place)  # one that was killed while it was noted has no run.json
    return told


def without_password(address: str) -> str:
    """Return an address as it may be shown."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def reason(error: Exception) -> str:
    """Return what a server answered, or else the error."""
    if isinstance(error, urllib.error.HTTPError):
        said = error.read().decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            said = json.loads(said)["message"]
        return f"{error.code}: {' '.join(said.split())[:300]}"
    return str(getattr(error, "reason", error))


def ask(at: Settings, method: str, path: str, content: Any = None) -> dict[str, Any]:  # noqa: ANN401 - JSON, or bytes
    """Ask the tracking server's REST API."""
    body = (
        content if isinstance(content, bytes) or content is None else json.dumps(content).encode()
    )
    parts = urllib.parse.urlsplit(at.tracking_uri)
    address = without_password(at.tracking_uri).rstrip("/")
    kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
    headers = {"Content-Type": kind}
    user = os.environ.get("MLFLOW_TRACKING_USERNAME") or urllib.parse.unquote(parts.username or "")
    password = os.environ.get("MLFLOW_TRACKING_PASSWORD") or urllib.parse.unquote(
        parts.password or ""
    )
    if token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    elif user:
        pair = base64.b64encode(f"{user}:{password}".encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    request = urllib.request.Request(  # noqa: S310 - the platform's own server
        f"{address}/api/2.0/{path}", data=body, headers=headers, method=method
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT) as reply:  # noqa: S310 - as above
        answer = json.loads(reply.read() or b"{}")
    return answer if isinstance(answer, dict) else {}


def run_is_tracked(at: Settings, run_id: str) -> bool:
    """Ask the tracking server whether it knows a run; only an HTTP address can be asked."""
    if not at.tracking_uri.startswith("http"):
        return True
    address = f"MLFLOW_TRACKING_URI {without_password(at.tracking_uri)}"
    try:
        ask(at, "GET", f"mlflow/runs/get?{urllib.parse.urlencode({'run_id': run_id})}")
    except urllib.error.HTTPError as error:
        if error.code == 404:  # noqa: PLR2004 - HTTP's own number
            return False
        raise RunnerError(f"{address} answers {error.code}: see its log.") from error
    except (OSError, ValueError) as error:
        raise RunnerError(
            f"{address} does not answer ({error}): start it and run again."
        ) from error
    return True


def experiments(at: Settings) -> Iterator[str]:
    """Name every experiment by its id."""
    token = ""
    while True:
        page = ask(
            at, "POST", "mlflow/experiments/search", {"max_results": 1000, "page_token": token}
        )
        yield from (entry["experiment_id"] for entry in page.get("experiments", ()))
        if not (token := page.get("next_page_token", "")):
            return


def search(at: Settings, condition: str) -> list[dict[str, Any]]:
    """List the MLflow runs of any experiment that a condition holds for."""
    asked = {"experiment_ids": list(experiments(at)), "filter": condition}
    return list(ask(at, "POST", "mlflow/runs/search", asked).get("runs", ()))


def tags_of(run: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an MLflow run."""
    return {entry["key"]: entry["value"] for entry in run["data"].get("tags", ())}


def logged_by_stages(at: Settings, run: Mapping[str, Any]) -> list[str]:
    """Name the MLflow runs that the stages of a pipeline run logged themselves.

    A stage that sets a PYTHONPATH of its own hides the plug-in: such a run is known by the commit
    that MLflow found checked out, which nobody else has, and is told its lineage here.
    """
    known = [
        entry["info"]["run_id"]
        for entry in search(at, f"tags.{RUN} = '{run['id']}'")
        if tags_of(entry).get("mlflow.source.name") != BY_RUNNER
    ]
    snapshot = run["tags"]["git_snapshot"]
    plain = search(
        at,
        f"tags.`mlflow.source.git.commit` = '{snapshot}' "
        f"and attributes.start_time >= {run['began']}",
    )
    for entry in plain:
        missing = {key: value for key, value in run["tags"].items() if key not in tags_of(entry)}
        for key in ("mlflow.source.name", *(key for key in missing if key.startswith("out_md5"))):
            missing.pop(key, None)
        missing["mlflow.source.git.commit"] = run["tags"]["git_commit"]
        run_id = entry["info"]["run_id"]
        if run_id not in known:
            known.append(run_id)
            set_tags(at, run_id, missing)
    return known


def set_tags(at: Settings, run_id: str, tags: Mapping[str, str]) -> None:
    """Set tags of an MLflow run."""
    spelled = [{"key": key, "value": value[: MOST["tag"]]} for key, value in tags.items()]
    for start in range(0, len(spelled), AT_ONCE):
        batch = spelled[start : start + AT_ONCE]
        ask(at, "POST", "mlflow/runs/log-batch", {"run_id": run_id, "tags": batch})


def log(at: Settings, run: Mapping[str, Any], place: Path) -> str:
    """Log a run that no stage logged; one that was broken off half way is gone on with."""
    half = search(at, f"tags.{RUN} = '{run['id']}'")
    made = half[0] if half else create(at, run)
    run_id = made["info"]["run_id"]
    params = [
        {"key": name_of(key), "value": json_of(value)[: MOST["param"]]}
        for key, value in run["params"].items()
    ]
    for start in range(0, len(params), AT_ONCE):
        batch = params[start : start + AT_ONCE]
        ask(at, "POST", "mlflow/runs/log-batch", {"run_id": run_id, "params": batch})
    metrics = [
        {"key": name_of(key), "value": number(value), "timestamp": run["ended"], "step": 0}
        for key, value in run["metrics"].items()
    ]
    for start in range(0, len(metrics), AT_ONCE):
        batch = metrics[start : start + AT_ONCE]
        ask(at, "POST", "mlflow/runs/log-batch", {"run_id": run_id, "metrics": batch})
    send_artifacts(at, made["info"]["artifact_uri"], place / "artifacts")
    end = {"run_id": run_id, "status": "FINISHED", "end_time": run["ended"]}
    ask(at, "POST", "mlflow/runs/update", end)
    return str(run_id)


def create(at: Settings, run: Mapping[str, Any]) -> dict[str, Any]:
    """Create an MLflow run in the project's experiment."""
    name = urllib.parse.urlencode({"experiment_name": at.name})
    try:
        there = ask(at, "GET", f"mlflow/experiments/get-by-name?{name}")["experiment"]
    except urllib.error.HTTPError as error:
        if error.code != 404:  # noqa: PLR2004 - HTTP's own number
            raise
        there = ask(at, "POST", "mlflow/experiments/create", {"name": at.name})
    tags = [{"key": key, "value": value[: MOST["tag"]]} for key, value in run["tags"].items()]
    made = ask(
        at,
        "POST",
        "mlflow/runs/create",
        {
            "experiment_id": there["experiment_id"],
            "run_name": f"{at.name}-{run['id'][:8]}",
            "start_time": run["began"],
            "tags": tags,
        },
    )
    created: dict[str, Any] = made["run"]
    return created


def name_of(key: str) -> str:
    """Spell the name of a parameter or metric as MLflow allows one."""
    file, colon, plain = key.rpartition(":")
    return tag(file, plain) if colon else tag("", plain).lstrip("/")


def json_of(value: Any) -> str:  # noqa: ANN401 - a parameter's
    """Spell a parameter's value."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def number(value: float) -> float | str:
    """Spell a metric's value, which need not be a number that JSON knows."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def send_artifacts(at: Settings, uri: str, place: Path) -> None:
    """Send files to a run, by way of the server; one that hands no files on gets none."""
    if not uri.startswith(PUBLIC):
        return
    root = urllib.parse.urlsplit(uri).path.strip("/")
    for path in sorted(path for path in place.rglob("*") if path.is_file()):
        name = urllib.parse.quote(f"{root}/{path.relative_to(place)}")
        ask(at, "PUT", f"mlflow-artifacts/artifacts/{name}", path.read_bytes())


def now() -> int:
    """Return the time in milliseconds, as MLflow takes it."""
    return int(time.time() * 1000)
