"""The API of a platform's DVC runners: submit, list, follow and cancel runs from other programs.

It reads each project's workspace, writes into its inbox, and reaches nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ValueType
from hydra.errors import HydraException
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from dvc_runner.door import ASKED, CANCELLED, NAME, lying, submit, withdraw
from dvc_runner.git import without_passwords
from dvc_runner.history import runs
from dvc_runner.settings import Settings, settings
from dvc_runner.state import NOTHING, read_json
from dvc_runner.status import standing, status
from dvc_runner.turns import came, unanswered

OPEN = "/health"
LEAST = 16  # characters of a token
CHUNK = 1 << 16
POLL_SECONDS = 0.5
ENDED = ("done", "failed", "cancelled")


# --- what is said here


class Told(BaseModel):
    """What the runner tells, which may be more than is named here."""

    model_config = ConfigDict(extra="allow")


class Project(Told):
    """A project, as `dvc_runner status` tells of it."""

    project: str
    state: Literal["never ran", "waiting", "running", "failed", "cancelled", "done"]
    place: int | None = Field(default=None, description="how many runs end before its own begins")
    text: str = Field(description="all of it in one line")
    last_run: dict[str, Any] = Field(description="number, age in seconds, metrics, MLflow runs")
    failed: dict[str, Any] = Field(description="how the last run ended, where that was not well")
    waiting: list[str] = Field(description="requests that wait, in order")
    runs: int = Field(description="how many are kept")


class Asked(BaseModel):
    """A run of what was last delivered to the project, by `make up` or `make pipeline`."""

    model_config = ConfigDict(extra="forbid")
    set: list[str] = Field(
        default=[], max_length=1000, description="as of `dvc exp run --set-param`"
    )
    grid: list[str] = Field(
        default=[], max_length=1000, description="the same with several values each"
    )
    force: bool = Field(default=False, description="run every stage again")
    pipeline: str | None = Field(
        default=None, description="one dvc.yaml; without it the delivery's own"
    )
    stage: str | None = Field(
        default=None,
        min_length=1,
        description="one stage, as DVC calls it; a request without one ends the run",
    )


class Accepted(BaseModel):
    """A request that is kept."""

    id: str


class Result(Told):
    """How a run ended."""

    ok: bool
    error: str | None = None
    stage: str | None = Field(default=None, description="the one that failed")
    code: int | None = Field(default=None, description="its exit code")
    changed: bool | None = Field(default=None, description="false: there was nothing to do")
    seconds: float | None = None
    metrics: dict[str, Any] = {}
    params: dict[str, Any] = {}
    mlflow_runs: list[str] = []
    outputs: dict[str, str] = Field(default={}, description="path to md5")
    grid: list[dict[str, Any]] | None = Field(default=None, description="one entry a combination")
    table: str | None = None


class Run(BaseModel):
    """A request, and the run that came of it."""

    id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    place: int | None = Field(default=None, description="how many runs end before it begins")
    number: int | None = Field(default=None, description="of the run in the project's history")
    ending: bool = Field(default=False, description="it is cancelled, and has not ended yet")
    result: Result | None = None


class Runs(BaseModel):
    """What was asked for lately, and the runs that are kept."""

    requests: list[Run]
    history: list[dict[str, Any]] = Field(description="as `dvc_runner history`, the oldest first")


# --- where it is read


@dataclass(frozen=True)
class Platform:
    """Where the projects' workspaces and inboxes are, and how the runners queue."""

    projects: Path
    queue: Path | None = None
    at_once: int = 1

    def names(self) -> list[str]:
        """Name the projects."""
        return sorted(path.parent.name for path in self.projects.glob("*/workspace"))

    def of(self, name: str, asked: str = "") -> Settings:
        """Return where a project is, and which request is meant; 404 where there is none."""
        if name not in (known := self.names()):
            raise HTTPException(
                404, f"There is no project {name!r} (there are {', '.join(known) or 'none'})."
            )
        at = settings(
            {
                "RUNNER_WORKSPACE": str(self.projects / name / "workspace"),
                "RUNNER_INBOX": str(self.projects / name / "inbox"),
                "RUNNER_QUEUE": str(self.queue or ""),
                "RUNNER_AT_ONCE": str(self.at_once),
                "RUNNER_PROJECT": name,
            }
        )
        return replace(at, asked=asked)

    def run(self, name: str, asked: str) -> Run:
        """Return how a request of a project stands; 404 where it is not known."""
        at = self.of(name, asked)
        if not NAME.fullmatch(asked) or not (found := found_of(at)):
            raise HTTPException(404, f"Project {name} knows no request {asked!r}: it may be old.")
        return found


def inbox(at: Settings) -> Path:
    """Return where requests are put."""
    return at.inbox or at.workspace


def found_of(at: Settings) -> Run | None:
    """Return how a request stands, where it waits in the inbox, is kept, or is known by its run."""
    # what is taken up leaves the inbox once it is kept
    coming = [path.stem for path in lying(inbox(at), ASKED)]
    numbers = [run for run in runs(at) if run.get("asked") == at.asked]
    known: dict[str, Any] = {}
    if at.request.exists():
        known = standing(at)
    elif at.asked in coming:
        known = {"state": "waiting", "place": len(unanswered(at)) + coming.index(at.asked)}
    elif numbers:
        known = {"state": "done", "result": {**numbers[-1], "ok": True}}
    if not known:
        return None
    result = known.pop("result", None)
    gone = at.asked in [path.stem for path in lying(inbox(at), CANCELLED)] or at.cancelled.exists()
    return Run(
        id=at.asked,
        ending=gone and known["state"] not in ENDED,
        number=numbers[-1]["number"] if numbers else None,
        result=Result(**shown({**result, "outputs": result.get("hashes", {})})) if result else None,
        **known,
    )


def shown(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Take the passwords out of the addresses in what is told."""
    if isinstance(value, Mapping):
        return {key: shown(each) for key, each in value.items() if key != "hashes"}
    if isinstance(value, list):
        return [shown(each) for each in value]
    return without_passwords(value) if isinstance(value, str) else value


def wrong_in(asked: Asked) -> str:
    """Say what of a request can not be run, or return an empty string."""
    for name, value in asked:
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and half(text):
                return f"{name}: {text!r} has half a character, which no file can hold: correct it."
    if asked.stage and asked.grid:
        return "grid: a stage is of one run: give one value each in set, or no stage."
    return wrong_parameter(asked)


def wrong_parameter(asked: Asked) -> str:
    """Say what DVC would not take of parameters, or return an empty string."""
    parser = OverridesParser.create()
    for name in ("set", "grid"):
        for item in getattr(asked, name):
            key = item.partition("=")[0]
            try:
                (found,) = parser.parse_overrides([item.partition(":")[2] if ":" in key else item])
                why = "" if found.key_or_group else "it has no name"
            except HydraException as error:
                why = " ".join(str(error.__cause__ or error).split())
            if why:
                return f"{name}: {item!r} is none that `dvc exp run --set-param` takes: {why}."
            if found.value_type == ValueType.GLOB_CHOICE_SWEEP:
                return f"{name}: {item!r} is a pattern: name its values."
            if name == "set" and found.is_sweep_override():
                return f"set: {item!r} is several runs: put it into grid, or give one value."
    return ""


def half(text: str) -> bool:
    """Tell whether a text has a surrogate without its other half, as JSON can spell it."""
    return any("\ud800" <= each <= "\udfff" for each in text)


async def said(at: Settings, offset: int, follow: bool) -> AsyncIterator[bytes]:
    """Give what a run says, from a place on; with `follow` until it has ended."""
    while True:
        over = not follow or (found := found_of(at)) is None or found.state in ENDED
        with suppress(FileNotFoundError), at.log.open("rb") as log:
            log.seek(offset)
            while block := log.read(CHUNK):
                offset += len(block)
                yield block
        if over:
            return
        await asyncio.sleep(POLL_SECONDS)


# --- who may ask


class Guard:
    """Lets nobody in without the token, but those who ask for its health."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """Guard an application."""
        self.app, self.token = app, token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401 whatever it asks for."""
        if scope["type"] == "http" and scope["path"] != OPEN and not self.knows(scope):
            answer = JSONResponse(
                {"detail": "Give the token: `Authorization: Bearer <token>`."},
                401,
                {"WWW-Authenticate": "Bearer"},
            )
            return await answer(scope, receive, send)
        return await self.app(scope, receive, send)

    def knows(self, scope: Scope) -> bool:
        """Tell whether a request has the token, in the same time for each wrong one."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        return hmac.compare_digest(token.strip(), self.token) and scheme.lower() == b"bearer"


# --- what may be asked


def here(request: Request) -> Platform:
    """Return the platform that an application is of."""
    found: Platform = request.app.state.platform
    return found


Here = Annotated[Platform, Depends(here)]
SENTENCE: dict[int | str, dict[str, Any]] = {
    404: {"description": "no such project or request, in one sentence"}
}
router = APIRouter(prefix="/projects", dependencies=[Depends(HTTPBearer(auto_error=False))])


@router.get("", summary="The state of every project")
def projects(platform: Here) -> list[Project]:
    """Answer as `dvc_runner status` does, for each."""
    return [Project(**shown(status(platform.of(name)))) for name in platform.names()]


@router.get("/{project}", summary="The state of a project", responses=SENTENCE)
def project_state(platform: Here, project: str) -> Project:
    """Answer as `dvc_runner status` does."""
    return Project(**shown(status(platform.of(project))))


@router.post(
    "/{project}/runs",
    summary="Ask for a run of what was last delivered",
    status_code=202,
    responses={**SENTENCE, 409: {"description": "nothing was ever delivered"}},
)
def ask(
    platform: Here,
    project: str,
    asked: Asked | None = None,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=255, description="the same key is the same request"),
    ] = None,
) -> Accepted:
    """Keep a request; it waits for its turn as those of `make pipeline` do."""
    at, asked = platform.of(project), asked or Asked()
    if wrong := wrong_in(asked):
        raise HTTPException(422, wrong)
    if not read_json(at.delivered) and not unanswered(at):
        raise HTTPException(409, NOTHING.format(project))
    digest = hashlib.sha256((idempotency_key or "").encode()).hexdigest()[:32]
    name = digest if idempotency_key else uuid.uuid4().hex
    if not found_of(replace(at, asked=name)):
        submit(inbox(at), name, asked.model_dump(exclude_none=True))
    return Accepted(id=name)


@router.get("/{project}/runs", summary="Requests, and the history", responses=SENTENCE)
def listed(platform: Here, project: str) -> Runs:
    """Answer with what was asked for lately, as it came, and every run that is kept."""
    at = platform.of(project)
    coming = [path.stem for path in lying(inbox(at), ASKED)]
    names = [path.parent.name for path in sorted(at.requests.glob("*/request.json"), key=came)]
    names += [name for name in coming if name not in names]
    found = [found_of(replace(at, asked=name)) for name in names]
    return Runs(requests=[run for run in found if run], history=shown(runs(at)))


@router.get("/{project}/runs/{run}", summary="How a request stands", responses=SENTENCE)
def run_state(platform: Here, project: str, run: str) -> Run:
    """Answer with its state, and once it has ended with its result."""
    return platform.run(project, run)


@router.get(
    "/{project}/runs/{run}/log",
    summary="What its run says",
    response_class=StreamingResponse,
    responses={**SENTENCE, 200: {"content": {"text/plain": {}}}},
)
def log(
    platform: Here,
    project: str,
    run: str,
    offset: Annotated[int, Query(ge=0, description="bytes that are known already")] = 0,
    follow: Annotated[bool, Query(description="go on until the run has ended")] = False,
) -> StreamingResponse:
    """Answer with the log as it is, or as it comes."""
    platform.run(project, run)
    text = said(platform.of(project, run), offset, follow)
    return StreamingResponse(text, media_type="text/plain; charset=utf-8")


@router.delete(
    "/{project}/runs/{run}",
    summary="Cancel a request that waits or runs; finished stages are kept",
    status_code=202,
    responses={**SENTENCE, 409: {"description": "it has ended"}},
)
def cancel(platform: Here, project: str, run: str) -> Accepted:
    """Have it end; its state says when it has."""
    found = platform.run(project, run)
    if found.state in ENDED:
        raise HTTPException(409, f"Request {run} has ended already ({found.state}).")
    withdraw(inbox(platform.of(project)), run)
    return Accepted(id=run)


def health() -> dict[str, bool]:
    """Answer, and say nothing of what runs."""
    return {"ok": True}


def refuse(_: Request, error: Exception) -> JSONResponse:
    """Say in one sentence what a request has that can not be."""
    faults = error.errors() if isinstance(error, RequestValidationError) else ()
    said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in faults)
    return JSONResponse({"detail": f"{said}."}, 422)


def api(platform: Platform, token: str) -> FastAPI:
    """Return the application.

    Raises:
        ValueError: the token can be guessed.
    """
    if len(token) < LEAST:
        raise ValueError(f"The token has {len(token)} characters: give it {LEAST} or more.")
    # no pages: they would fetch their scripts from elsewhere
    app = FastAPI(title="DVC runners", version="1", docs_url=None, redoc_url=None)
    app.state.platform = platform
    app.add_middleware(Guard, token=token)
    app.add_exception_handler(RequestValidationError, refuse)
    app.add_api_route(OPEN, health, summary="Whether it answers; needs no token")
    app.include_router(router)
    return app


def from_environment() -> FastAPI:
    """Return the application of the container that this runs in."""
    queue = os.environ.get("RUNNER_QUEUE", "")
    platform = Platform(
        Path(os.environ.get("RUNNER_PROJECTS", "/projects")),
        Path(queue) if queue else None,
        int(os.environ.get("RUNNER_AT_ONCE", "1")),
    )
    secret = Path(os.environ.get("RUNNER_API_TOKEN_FILE", "/run/secrets/token"))
    return api(platform, secret.read_text().strip())
