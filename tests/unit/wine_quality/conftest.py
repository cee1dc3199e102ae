import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import yaml

from wine_quality.config import Project, load_project

if TYPE_CHECKING:
    from mlflow import MlflowClient

ROOT = Path(__file__).parents[3]
SETTINGS = ("config.yaml", "params.yaml", "schema.yaml")
REAL = Path(os.environ.get("WINE_DATA", ROOT.parent / "shared/data/winequality-red.csv"))

# MLflow 3.17's own code, run in the test's process; a user never sees these
MLFLOW_WARNINGS = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # SQLite
    pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning"),  # SQLite
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType"),  # at its import
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # an input example
]


@pytest.fixture(scope="session")
def real_file() -> Path:
    """The original red-wine table."""
    if not REAL.is_file():
        pytest.skip(f"no real data at {REAL}; WINE_DATA=<path> names it")
    return REAL


def edit(folder: Path, name: str, **changes: object) -> None:
    """Change keys of a settings file, dots written as `__`."""
    path = folder / name
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        *above, last = key.split("__")
        here = content
        for part in above:
            here = here[part]
        here[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A directory with the shipped settings and nothing else."""
    for name in SETTINGS:
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


@pytest.fixture
def project(folder: Path) -> Project:
    return load_project(folder)


@pytest.fixture(scope="module")
def tracking_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking store in a file, shared by a module's tests; each has its own names in it."""
    import mlflow  # noqa: PLC0415  takes seconds, and most tests do without

    yield f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/x.db"
    mlflow.set_tracking_uri("")


@pytest.fixture
def client(tracking_store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "MlflowClient":
    import mlflow  # noqa: PLC0415

    for name in ("PIPELINE_GIT_COMMIT", "PIPELINE_GIT_DIRTY", "PLATFORM_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)  # where MLflow puts the artifacts of a file store
    mlflow.set_tracking_uri(tracking_store)
    return mlflow.MlflowClient()


def lock(project: Project, md5: str) -> None:
    """Write the one entry of dvc.lock that the evaluation asks for."""
    out = {"path": project.config.paths.raw, "md5": md5}
    content = {"stages": {"data_ingestion": {"outs": [out]}}}
    (project.root / "dvc.lock").write_text(yaml.safe_dump(content))


@contextmanager
def serving(
    status: int, body: bytes, claimed: int | None = None
) -> Iterator[tuple[str, list[str]]]:
    """An HTTP server on loopback that gives one answer; and the Authorization headers it saw."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if claimed is None else claimed))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Workspace:
    """A copy of the project in which DVC runs as a user would run it."""

    path: Path
    tracking_uri: str

    def run(
        self, *command: str, check: bool = True, **env: str
    ) -> subprocess.CompletedProcess[str]:
        binaries = Path(sys.executable).parent
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith("MLFLOW")
        }
        done = subprocess.run(
            command,
            cwd=self.path,
            env={
                **inherited,
                "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
                "MLFLOW_TRACKING_URI": self.tracking_uri,
                "DVC_SITE_CACHE_DIR": str(self.path / ".dvc/tmp/site"),
                **env,
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done


def make_workspace(path: Path, source: str) -> Workspace:
    """Copy what a clone holds, configured for a source."""
    for name in (*SETTINGS, "dvc.yaml", ".dvcignore", "requirements-pipeline.txt"):
        shutil.copy(ROOT / name, path)
    (path / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", path / ".dvc")
    shutil.copy(ROOT / ".dvc/.gitignore", path / ".dvc")
    (path / ".gitignore").write_text("/data/\n/models/\n/metrics/\n/logs/\n/mlruns/\n/x.db\n")
    shutil.copytree(
        ROOT / "src/wine_quality",
        path / "src/wine_quality",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    edit(path, "config.yaml", data_ingestion__source=source)
    workspace = Workspace(path, f"sqlite:///{path}/x.db")
    commit(path)
    return workspace


def commit(folder: Path) -> None:
    """Make a repository of a directory, all in one commit."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.invalid")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "the project")):
        subprocess.run(["git", *words], cwd=folder, check=True)
