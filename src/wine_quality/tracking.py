"""One MLflow run per pipeline run: what went in, what came out, and which bytes it was.

MLflow reads its address and credentials from the environment; nothing here knows them.
"""

import fcntl
import hashlib
import os
import platform
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

# before mlflow is imported, which reads them: a server that is down is noticed within half a
# minute, and nobody is told of a run but that server
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import mlflow.sklearn
import yaml
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature, infer_signature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType
from mlflow.utils.mlflow_tags import MLFLOW_GIT_COMMIT
from requests.exceptions import RequestException
from sklearn.base import RegressorMixin

from wine_quality import champion, plots
from wine_quality.config import Project, without_credentials
from wine_quality.parts import Part
from wine_quality.runtime import PipelineError, file_digest, log

# named, because finding them out means loading the model in a second Python
REQUIREMENTS = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")
ENVIRONMENT = "environment.csv"  # artifact of a run: the packages it was made with

_ANY = AnyType()  # type: ignore[no-untyped-call]  # MLflow's


@dataclass(frozen=True)
class Tracked:
    """A finished run and the model version it registered."""

    run_id: str
    experiment_id: str
    model_version: str
    data_md5: str
    model_md5: str
    verdict: str  # what became of the champion, for people

    def record(self) -> dict[str, str]:
        """What programs want to know of it."""
        return {key: value for key, value in asdict(self).items() if key != "verdict"}


def track(
    project: Project,
    model: RegressorMixin,
    parts: dict[str, Part],
    metrics: dict[str, Any],
) -> Tracked:
    """Log the run, register the model as `candidate`, and as `champion` where it is better.

    Args:
        project: where the files are and how the run is named.
        model: the fitted regressor, the same that the model file holds.
        parts: features and scores of the parts `train` and `test`.
        metrics: content of the metrics file.

    Raises:
        PipelineError: dvc.lock names other data, or the tracking server fails; then the run is
            marked as failed and no version stays registered.
    """
    tags = lineage(project, metrics)
    address = mlflow.get_tracking_uri()
    log.info("logging to MLflow at %s", without_credentials(address))
    try:
        return _track(project, model, parts, metrics, tags)
    except (MlflowException, RequestException) as error:
        raise PipelineError(
            f"MLflow at {without_credentials(address)} did not take the run"
            f" ({champion.reason(error)[:400]});"
            " nothing is lost: run again when it answers; only model_evaluation runs again"
        ) from None


def lineage(project: Project, metrics: dict[str, Any]) -> dict[str, str]:
    """Tags that say which data, code and model a run is of.

    Raises:
        PipelineError: dvc.lock does not name the raw file's md5.
    """
    return {
        "data_md5": _locked_md5(project, metrics["data_md5"]),
        "data_source": str(metrics["data_source"]),
        "data_name": str(metrics["data_name"]),
        "model_md5": file_digest(project.path("model"), "md5"),
        "schema_version": str(project.schema_.version),
        **_of_git(project.root),
        "environment": hashlib.sha256(environment().encode()).hexdigest(),
        "platform": os.environ.get("PLATFORM_NAME") or "local",
    }


def environment() -> str:
    """Table of this Python and every package that it finds, with their versions."""
    found: dict[str, str] = {}
    for package in distributions():  # of two the first is the one that is imported
        if package.name:  # a removed one may leave its directory
            found.setdefault(re.sub(r"[-_.]+", "-", package.name).lower(), package.version)
    lines = ["package,version", f"python,{platform.python_version()}"]
    lines += [f"{name},{found[name]}" for name in sorted(found)]
    return "\n".join([*lines, ""])


def _locked_md5(project: Project, actual: str) -> str:
    raw = project.config.paths.raw
    lock = project.root / "dvc.lock"
    locked = None
    if lock.is_file():
        stages = (yaml.safe_load(lock.read_text(encoding="utf-8")) or {}).get("stages", {})
        outs = stages.get("data_ingestion", {}).get("outs", [])
        locked = next((out.get("md5") for out in outs if out.get("path") == raw), None)
    if locked != actual:
        raise PipelineError(
            f"dvc.lock: md5 of {raw} is {locked or 'not there'}, that of the file is {actual};"
            " run `dvc repro`, which brings them together"
        )
    return actual


def _git(root: Path, *arguments: str) -> str:
    """Answer of git, empty where there is no git or no repository that it trusts."""
    try:
        done = subprocess.run(  # noqa: S603  arguments are written above
            ["git", "-C", str(root), *arguments],  # noqa: S607  git from PATH
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _of_git(root: Path) -> dict[str, str]:
    """Tags of the source's commit.

    MLflow would name the commit that is checked out; for the runner that is a snapshot, which
    nobody else has.
    """
    head = _git(root, "rev-parse", "HEAD")
    commit = os.environ.get("PIPELINE_GIT_COMMIT") or head or "none"
    told = os.environ.get("PIPELINE_GIT_DIRTY")
    found = ("true" if _git(root, "status", "--porcelain") else "false") if head else "none"
    tags = {"git_commit": commit, "git_dirty": told or found, MLFLOW_GIT_COMMIT: commit}
    return tags | ({"git_snapshot": head} if head not in ("", commit) else {})


def _track(
    project: Project,
    model: RegressorMixin,
    parts: dict[str, Part],
    metrics: dict[str, Any],
    tags: dict[str, str],
) -> Tracked:
    client = MlflowClient()
    experiment_id = _experiment(client, project.config.mlflow.experiment)
    with (
        _attempt(client, experiment_id, project) as attempt,
        mlflow.start_run(
            experiment_id=experiment_id,
            run_name=f"{tags['platform']}-{tags['model_md5'][:8]}",
            tags={**tags, "attempt": attempt},
        ) as run,
    ):
        run_id = run.info.run_id
        logged = _log_model(project, model, parts, run_id)
        _log_batch(client, run_id, project, metrics, logged.model_id)
        registered = project.config.mlflow.registered_model
        made = mlflow.register_model(logged.model_uri, registered, await_registration_for=0)
        try:
            client.set_registered_model_alias(registered, "candidate", made.version)
            candidate = champion.Candidate(
                registered=registered,
                version=made.version,
                run_id=run_id,
                model=model,
                parts=parts,
                synthetic=metrics["data_source"] == "synthetic",
            )
            verdict = champion.crown(client, candidate)
        except BaseException:
            client.delete_model_version(registered, made.version)
            raise
    return Tracked(
        run_id=run_id,
        experiment_id=experiment_id,
        model_version=str(made.version),
        data_md5=tags["data_md5"],
        model_md5=tags["model_md5"],
        verdict=verdict,
    )


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name))


@contextmanager
def _attempt(client: MlflowClient, experiment_id: str, project: Project) -> Iterator[str]:
    """Name this attempt at a run, and bury the one before it in this workspace if it was killed.

    The dead are told from the living by a file that is locked for as long as an attempt lives, for
    other workspaces log to the same experiment, in the name of the same platform too. In a copy of
    the workspace that file is a copy, which its attempt never locked.
    """
    path = project.path("last_run").with_name("attempt")
    path.parent.mkdir(parents=True, exist_ok=True)
    attempt = uuid.uuid4().hex
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:  # one that lives, or a file system without locks
            log.warning(
                "%s is not locked (%s): no run that died is looked for", path, error.strerror
            )
            yield attempt
            return
        inode = os.fstat(file.fileno()).st_ino
        file.seek(0)
        before = file.read().split()
        if before[1:] == [str(inode)]:
            _bury(client, experiment_id, before[0])
        file.truncate(0)
        file.write(f"{attempt} {inode}\n")
        file.flush()
        yield attempt


def _bury(client: MlflowClient, experiment_id: str, attempt: str) -> None:
    """Mark the run of a dead attempt as failed, and take back what it registered."""
    running = client.search_runs(
        [experiment_id], f"attributes.status = 'RUNNING' and tags.attempt = '{attempt}'"
    )
    for run in running:
        for made in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            if not client.get_model_version(made.name, made.version).aliases:
                client.delete_model_version(made.name, made.version)
        client.set_terminated(run.info.run_id, RunStatus.to_string(RunStatus.FAILED))
        log.warning("run %s died before its end; marked as failed", run.info.run_id)


def _log_batch(
    client: MlflowClient, run_id: str, project: Project, metrics: dict[str, Any], model_id: str
) -> None:
    """All parameters and metrics in one request.

    After the model, and naming it: MLflow asks for each metric again when a model follows them.
    """
    params = {
        **project.params.model.model_dump(),
        **{f"split_{key}": value for key, value in project.params.split.model_dump().items()},
        **{f"rows_{key}": value for key, value in metrics["rows"].items()},
    }
    timestamp = time.time_ns() // 1_000_000
    client.log_batch(
        run_id,
        params=[Param(key, str(value)) for key, value in params.items()],
        metrics=[
            Metric(f"{part}_{key}", value, timestamp, 0, model_id=model_id, run_id=run_id)
            for part in ("train", "test")
            for key, value in metrics[part].items()
        ],
    )


def _log_model(
    project: Project, model: RegressorMixin, parts: dict[str, Part], run_id: str
) -> ModelInfo:
    """Log the files, then the model in MLflow's own form."""
    x_test, y_test = parts["test"]
    predicted = model.predict(x_test)
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name)
        (staged / "pipeline").mkdir()
        (staged / "plots").mkdir()
        for key in ("model", "metrics", "source"):
            source = project.path(key)
            (staged / "pipeline" / source.name).write_bytes(source.read_bytes())
        for title, figure in plots.draw(
            model, [str(name) for name in x_test], y_test, predicted
        ).items():
            figure.savefig(staged / "plots" / f"{title}.png")
        (staged / ENVIRONMENT).write_text(environment())
        (staged / champion.TRAINED_ON).write_text(champion.trained_on(parts["train"]))
        mlflow.log_artifacts(str(staged), run_id=run_id)
    logged: ModelInfo = mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=champion.TRUSTED_TYPES,
        signature=ModelSignature(
            # not "double", for MLflow refuses a client's 7 where that is said
            inputs=Schema([ColSpec(_ANY, str(name)) for name in x_test]),
            outputs=infer_signature(x_test, predicted).outputs,
        ),
        input_example=x_test.head(3),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )
    return logged
