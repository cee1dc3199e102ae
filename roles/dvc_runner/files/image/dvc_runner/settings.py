"""Where a run happens and what it talks to."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where a run happens and what it talks to."""

    workspace: Path
    remote_url: str
    remote_endpoint: str
    tracking_uri: str
    dvc: str
    name: str = "project"
    """Of the project; its experiment in MLflow is called so."""
    secrets: Path = Path("/run/secrets")
    """Files whose names begin with `env_` are variables of stages, and nobody else's.

    `dvc_config` holds DVC's settings for the project's own remotes, `remote_ssh_key` and
    `remote_host_key` what those by SSH are reached with.
    """
    scratch: Path = Path("/workspace/tmp")
    """Where stages put temporary files; emptied before each run."""
    queue: Path | None = None
    """Where the runners of a platform wait for a place; none where a run waits for no other."""
    at_once: int = 1
    inbox: Path | None = None
    """Where other programs put what they ask for; none where nobody but `request` asks."""
    image: Path = Path("/opt")
    """Where the image has the environments that it was built with, and what it says of them."""
    remote_credentials: str = ""
    """A file with the keys for an S3 remote, as AWS's own clients write it."""
    place: str = "project"
    """The directory of the work tree; a copy of it has another one."""
    asked: str = ""
    """Which request this is about; empty where nobody else asks for runs in this workspace."""

    @property
    def requests(self) -> Path:
        """What was asked for, a directory each."""
        return self.workspace / "requests"

    @property
    def own(self) -> Path:
        """Where a request is, what its run says and how it ended."""
        return self.requests / self.asked if self.asked else self.workspace

    @property
    def project(self) -> Path:
        """The work tree that stages run in."""
        return self.workspace / self.place

    @property
    def cache(self) -> Path:
        """What DVC keeps of the project's files, laid out as in a remote."""
        return self.project / ".dvc" / "cache"

    @property
    def inputs(self) -> Path:
        """Data files that were handed in."""
        return self.workspace / "inputs"

    @property
    def state(self) -> Path:
        """What the last run that ended well was made of, and whether that is what lies here."""
        return self.workspace / "state.json"

    @property
    def delivered(self) -> Path:
        """What was last brought here to be run, whoever asks for a run of it."""
        return self.workspace / "delivered.json"

    @property
    def unfinished(self) -> Path:
        """What a run that did not end well was made of, and how far it came."""
        return self.workspace / "unfinished.json"

    @property
    def history(self) -> Path:
        """The runs that ended well."""
        return self.workspace / "runs.json"

    @property
    def failure(self) -> Path:
        """How the last run ended, where that was not well."""
        return self.workspace / "failed.json"

    @property
    def running(self) -> Path:
        """Which request is served, and since when."""
        return self.workspace / "running.json"

    @property
    def cancelled(self) -> Path:
        """There where the request is not wanted any more."""
        return self.own / "cancelled"

    @property
    def untracked(self) -> Path:
        """What the tracking server is still to be told, a directory for each run."""
        return self.workspace / "untracked"

    @property
    def home(self) -> Path:
        """The home directory of stages."""
        return self.workspace / "home"

    @property
    def local(self) -> Path:
        """Where the project's own packages are installed."""
        return self.workspace / "local"

    @property
    def request(self) -> Path:
        """What is asked for."""
        return self.own / "request.json"

    @property
    def log(self) -> Path:
        """Output of the run."""
        return self.own / "run.log"

    @property
    def result(self) -> Path:
        """How the run ended."""
        return self.own / "result.json"


def settings(environment: Mapping[str, str]) -> Settings:
    """Read the settings from RUNNER_* and MLFLOW_TRACKING_URI."""
    beside = Path(sys.executable).parent / "dvc"
    workspace = Path(environment.get("RUNNER_WORKSPACE", "/workspace")).absolute()
    return Settings(
        workspace=workspace,
        scratch=Path(environment.get("RUNNER_SCRATCH") or workspace / "tmp"),
        remote_url=environment.get("RUNNER_REMOTE_URL", ""),
        remote_endpoint=environment.get("RUNNER_REMOTE_ENDPOINT", ""),
        remote_credentials=environment.get("RUNNER_REMOTE_CREDENTIALS", ""),
        tracking_uri=environment.get("MLFLOW_TRACKING_URI", ""),
        # a project's own environment may bring another one, and would be found first
        dvc=environment.get("RUNNER_DVC") or str(beside if beside.exists() else "dvc"),
        image=Path(environment.get("RUNNER_IMAGE", "/opt")),
        name=environment.get("RUNNER_PROJECT", "project"),
        queue=Path(environment["RUNNER_QUEUE"]) if environment.get("RUNNER_QUEUE") else None,
        inbox=Path(environment["RUNNER_INBOX"]) if environment.get("RUNNER_INBOX") else None,
        at_once=max(1, int(environment.get("RUNNER_AT_ONCE", "1"))),
        secrets=Path(environment.get("RUNNER_SECRETS", "/run/secrets")),
    )
