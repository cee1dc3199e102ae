"""One MLflow run per pipeline run: what went in, what came out, and which bytes it was.

MLflow reads its address and credentials from the environment; nothing here knows them.
"""

import os
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
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
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from mlflow.models.model import ModelInfo
from requests.exceptions import RequestException
from sklearn.base import RegressorMixin

from wine_quality import plots
from wine_quality.config import Project, without_credentials
from wine_quality.parts import Part
from wine_quality.runtime import PipelineError, file_digest, log

# a tree's nodes are no type that skops trusts by itself; these are ones we just made
TRUSTED_TYPES = ["sklearn.tree._tree.Tree"]
# named, because finding them out means loading the model in a second Python
REQUIREMENTS = ("mlflow", "numpy", "pandas", "scikit-learn", "scipy", "skops")


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
    test: Part,
    metrics: dict[str, Any],
) -> Tracked:
    """Log the run, register the model as `candidate`, and as `champion` where it is better.

    Args:
        project: where the files are and how the run is named.
        model: the fitted regressor, the same that the model file holds.
        test: features and scores of the test part.
        metrics: content of the metrics file.

    Raises:
        PipelineError: dvc.lock names other data, or the tracking server fails; then the run is
            marked as failed and no version stays registered.
    """
    tags = lineage(project, metrics)
    address = mlflow.get_tracking_uri()
    log.info("logging to MLflow at %s", without_credentials(address))
    try:
        return _track(project, model, test, metrics, tags)
    except (MlflowException, RequestException) as error:
        reason = " ".join(str(error).split()).replace(address, without_credentials(address))
        raise PipelineError(
            f"MLflow at {without_credentials(address)} did not take the run ({reason[:400]});"
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
        "model_md5": file_digest(project.path("model"), "md5"),
        "schema_version": str(project.schema_.version),
        "git_commit": os.environ.get("PIPELINE_GIT_COMMIT")
        or _git(project.root, "rev-parse", "HEAD")
        or "none",
        "git_dirty": os.environ.get("PIPELINE_GIT_DIRTY") or _dirty(project.root),
        "platform": os.environ.get("PLATFORM_NAME") or "local",
    }


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


def _dirty(root: Path) -> str:
    if not _git(root, "rev-parse", "HEAD"):
        return "none"
    return "true" if _git(root, "status", "--porcelain") else "false"


def _track(
    project: Project,
    model: RegressorMixin,
    test: Part,
    metrics: dict[str, Any],
    tags: dict[str, str],
) -> Tracked:
    client = MlflowClient()
    experiment_id = _experiment(client, project.config.mlflow.experiment)
    _bury_the_dead(client, experiment_id, tags["platform"])
    with mlflow.start_run(
        experiment_id=experiment_id,
        run_name=f"{tags['platform']}-{tags['model_md5'][:8]}",
        tags=tags,
    ) as run:
        run_id = run.info.run_id
        logged = _log_model(project, model, test, run_id)
        _log_batch(client, run_id, project, metrics, logged.model_id)
        registered = project.config.mlflow.registered_model
        made = mlflow.register_model(logged.model_uri, registered, await_registration_for=0)
        try:
            client.set_registered_model_alias(registered, "candidate", made.version)
            verdict = crown(client, registered, made.version, metrics)
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


def _bury_the_dead(client: MlflowClient, experiment_id: str, platform: str) -> None:
    """Mark runs as failed whose process was killed before it could do so itself.

    A platform runs one pipeline at a time (DVC locks the workspace), so none of these lives.
    """
    running = client.search_runs(
        [experiment_id], f"attributes.status = 'RUNNING' and tags.platform = '{platform}'"
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


def _log_model(project: Project, model: RegressorMixin, test: Part, run_id: str) -> ModelInfo:
    """Log the files, then the model in MLflow's own form."""
    x_test, y_test = test
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
        mlflow.log_artifacts(str(staged), run_id=run_id)
    logged: ModelInfo = mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format=mlflow.sklearn.SERIALIZATION_FORMAT_SKOPS,
        skops_trusted_types=TRUSTED_TYPES,
        signature=infer_signature(x_test, predicted),
        input_example=x_test.head(3),
        pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
    )
    return logged


def crown(client: MlflowClient, registered: str, made: str, metrics: dict[str, Any]) -> str:
    """Move `champion` to this version where it earned it; say what was done and why."""
    rmse, synthetic = metrics["test"]["rmse"], metrics["data_source"] == "synthetic"
    champion = _champion(client, registered)
    if champion is None:
        verdict = "the first champion"
    else:
        name = f"champion version {champion.version}"
        best, known = _scored(client, champion)
        if synthetic and known != "synthetic":
            return f"candidate; {name} stays, it knows real data and this one does not"
        if known == "synthetic" and not synthetic:
            verdict = f"the new champion, version {champion.version} knew synthetic data only"
        elif best is None:
            return f"candidate; {name} stays, it has no run with a test_rmse to compare with"
        elif rmse >= best:
            return f"candidate; {name} stays with RMSE {best:.3f}"
        else:
            verdict = f"the new champion, better than version {champion.version} (RMSE {best:.3f})"
    client.set_registered_model_alias(registered, "champion", made)
    return verdict


def _scored(client: MlflowClient, made: ModelVersion) -> tuple[float | None, str | None]:
    """Test RMSE and data source of the run behind a version, where it has one."""
    if not made.run_id:
        return None, None
    data = client.get_run(made.run_id).data
    return data.metrics.get("test_rmse"), data.tags.get("data_source")


def _champion(client: MlflowClient, registered: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(registered, "champion")
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
