"""The pipeline as DVC runs it in a copy of the project, and the set-up script against a store."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from iris.files import StageError
from iris.preprocess import split
from iris.settings import Split

ROOT = Path(__file__).parents[1]
pytestmark = [
    pytest.mark.processes,
    # MLflow's own code, run in the test's process
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),
]


def copy(at: Path) -> Path:
    """Copy what git has of the project, as a repository of its own."""
    ignored = shutil.ignore_patterns(
        "__pycache__", "data", "models", "reports", "cache", "tmp", "config.local"
    )
    shutil.copytree(ROOT, at, ignore=ignored)
    who = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "the project")):
        subprocess.run(["git", *words], cwd=at, check=True)
    return at


def start(at: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project, with nothing of this shell's MLflow and AWS settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "AWS"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    own = {"PATH": path, "DVC_SITE_CACHE_DIR": str(at / ".dvc/tmp/site"), **env}
    return subprocess.run(
        words, cwd=at, env=kept | own, capture_output=True, text=True, check=False
    )


def repro(at: Path, **env: str) -> list[str]:
    """Run the pipeline; returns the stages that ran."""
    done = start(at, "dvc", "repro", MLFLOW_TRACKING_URI=f"sqlite:///{at}/mlflow.db", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running")]


def settings(at: Path, part: str, **changes: object) -> None:
    """Change keys of the project's settings."""
    path = at / "config/config.yaml"
    content = yaml.safe_load(path.read_text())
    content[part].update(changes)
    path.write_text(yaml.safe_dump(content))


def runs(at: Path) -> list[Run]:
    """All runs of the project, the newest first."""
    client = MlflowClient(f"sqlite:///{at}/mlflow.db")
    found = client.get_experiment_by_name("iris")
    return list(client.search_runs([found.experiment_id])) if found else []


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project after one run."""
    at = copy(tmp_path_factory.mktemp("iris") / "iris")
    assert repro(at) == ["get_data", "preprocess", "experiment_runner"]
    return at


def report(at: Path) -> dict[str, Any]:
    return dict(json.loads((at / "reports/metrics.json").read_text()))


def test_one_run_holds_every_figure_of_the_full_report(project: Path) -> None:
    [run] = runs(project)
    full = report(project)
    assert run.info.status == "FINISHED"
    for part in ("train", "test"):
        assert set(full[part]) == {
            *("setosa", "versicolor", "virginica", "accuracy", "macro avg", "weighted avg")
        }
        assert run.data.metrics[f"{part}_accuracy"] == full[part]["accuracy"]
        assert run.data.metrics[f"{part}_macro_avg_f1_score"] == full[part]["macro avg"]["f1-score"]
        assert run.data.metrics[f"{part}_setosa_recall"] == full[part]["setosa"]["recall"]
    assert full["test"]["accuracy"] > 0.9
    assert run.data.params["C"] == "1.0"
    assert run.data.params["rows_train"] == "119"


def test_the_registered_model_is_the_pickled_one_and_of_that_run(project: Path) -> None:
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    made = client.get_model_version_by_alias("iris", "candidate")
    [run] = runs(project)
    assert (made.run_id, str(made.version)) == (run.info.run_id, run.data.tags["model_version"])
    rows = pd.read_csv(project / "data/processed/test.csv").drop(columns="species")
    mlflow.set_tracking_uri(f"sqlite:///{project}/mlflow.db")
    loaded = mlflow.sklearn.load_model("models:/iris@candidate")
    mlflow.set_tracking_uri("")
    pickled = pickle.loads((project / "models/log_reg_model.pkl").read_bytes())  # noqa: S301 - of this test's run
    assert list(loaded.predict(rows)) == list(pickled.predict(rows))


def test_nothing_runs_while_nothing_changed(project: Path) -> None:
    assert repro(project) == []


def test_no_flower_is_in_both_parts(project: Path) -> None:
    parts = [pd.read_csv(project / f"data/processed/{name}.csv") for name in ("train", "test")]
    assert parts[0].merge(parts[1]).empty
    assert parts[1]["species"].value_counts().to_dict() == dict.fromkeys(
        ("setosa", "versicolor", "virginica"), 10
    )


def test_too_few_flowers_of_a_species_are_refused_in_one_sentence() -> None:
    table = pd.DataFrame({"petal_width": [1.0, 2.0, 3.0], "species": ["a", "a", "b"]})
    with pytest.raises(StageError, match="give more of each species"):
        split(table, Split(test_size=0.5, seed=1))


def test_another_hyper_parameter_runs_only_the_last_stage_and_makes_the_next_version(
    project: Path,
) -> None:
    before = len(runs(project))
    settings(project, "model", C=0.01)
    assert repro(project) == ["experiment_runner"]
    after = runs(project)
    assert len(after) == before + 1
    assert after[0].data.params["C"] == "0.01"
    assert int(after[0].data.tags["model_version"]) == before + 1


def test_a_misspelt_key_stops_the_pipeline_by_its_name(project: Path) -> None:
    settings(project, "model", max_itre=10)
    done = start(project, "dvc", "repro", MLFLOW_TRACKING_URI="sqlite:///x.db")
    settings_text = (project / "config/config.yaml").read_text()
    (project / "config/config.yaml").write_text(settings_text.replace("  max_itre: 10\n", ""))
    assert done.returncode != 0
    assert "unknown key model.max_itre (value 10)" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [("", "MLFLOW_TRACKING_URI is not set"), ("http://127.0.0.1:9", "MLflow did not take the run")],
)
def test_without_a_server_the_last_stage_fails_in_one_sentence_and_the_others_are_kept(
    project: Path, address: str, said: str
) -> None:
    settings(project, "model", C=0.5)
    quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = start(project, "dvc", "repro", MLFLOW_TRACKING_URI=address, **quick)
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "get_data" not in done.stdout.replace("'get_data' didn't change", "")


@contextmanager
def store(there: set[str], may_make: bool = True) -> Iterator[str]:
    """A store that knows buckets and nothing else; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self, status: int, text: str = "") -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            name = self.path.split("?")[0].strip("/")
            if name in there:
                self.answer(200, "<ListBucketResult><KeyCount>0</KeyCount></ListBucketResult>")
            else:
                self.answer(404, "<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>")

        def do_PUT(self) -> None:
            if may_make:
                there.add(self.path.strip("/"))
                self.answer(200)
            else:
                self.answer(403, "<Error><Code>AccessDenied</Code><Message>no</Message></Error>")

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def set_up(at: Path, address: str) -> subprocess.CompletedProcess[str]:
    keys = {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "of-this-test-alone"}
    where = {"AWS_ENDPOINT_URL_S3": address, "AWS_DEFAULT_REGION": "us-east-1"}
    return start(at, sys.executable, "set_up.py", **keys, **where, AWS_MAX_ATTEMPTS="1")


def test_the_set_up_script_makes_what_is_missing_and_the_second_time_nothing(
    tmp_path: Path,
) -> None:
    at = copy(tmp_path / "iris")
    shutil.rmtree(at / ".dvc")
    buckets: set[str] = set()
    with store(buckets) as address:
        first, second = set_up(at, address), set_up(at, address)
    assert first.returncode == 0, first.stderr
    made = first.stdout.splitlines()
    assert made[:-1] == [
        *("made data/processed/", "made data/raw/", "made models/", "made reports/"),
        *("initialised DVC", "made bucket dvc-storage", "remote platform is s3://dvc-storage/iris"),
    ]
    assert buckets == {"dvc-storage"}
    assert second.stdout.splitlines() == made[-1:]
    listed = start(at, "dvc", "remote", "list").stdout.split()
    assert listed[:2] == ["platform", "s3://dvc-storage/iris"]
    assert "of-this-test-alone" not in (at / ".dvc/config.local").read_text()


def test_a_project_below_a_repository_of_several_becomes_a_dvc_project_of_its_own(
    tmp_path: Path,
) -> None:
    at = copy(tmp_path / "iris")
    shutil.rmtree(at / ".dvc")
    shutil.rmtree(at / ".git")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    with store({"dvc-storage"}) as address:
        done = set_up(at, address)
    assert done.returncode == 0, done.stderr
    assert (at / ".dvc/config").is_file()


def test_a_bucket_that_cannot_be_made_and_a_store_that_is_down_are_one_sentence(
    tmp_path: Path,
) -> None:
    at = copy(tmp_path / "iris")
    with store(set(), may_make=False) as address:
        refused = set_up(at, address)
    silent = set_up(at, "http://127.0.0.1:9")
    assert (refused.returncode, silent.returncode) == (1, 1)
    assert "dvc-storage is not there and cannot be made" in refused.stderr
    assert "The store cannot be asked" in silent.stderr
    assert "Traceback" not in refused.stderr + silent.stderr
