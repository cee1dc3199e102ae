"""The API of the platform's DVC runners, as its OpenAPI says it: ask for a run, follow it, end it.

It needs nothing but the standard library, so it works in a DAG, a script and a test alike.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

ENDED = ("done", "failed", "cancelled")
# a line of the log may be far apart from the next one
QUIET_SECONDS = 30.0
PAUSE = 1.0
# whoever ends a task does not wait long
CANCEL_SECONDS, CANCEL_QUIET_SECONDS = 10.0, 3.0
CHUNK = 1 << 16
TEMPORARY = 500
UNANSWERED = (OSError, http.client.HTTPException)


KEPT = "dvc_runner_request"


class RunnerError(Exception):
    """Why a run could not be, in the runner's own words; `code` is the API's, 0 for silence."""

    def __init__(self, said: str, code: int = 0) -> None:
        """Keep both."""
        super().__init__(said)
        self.code = code


class Kept(Protocol):
    """What each try of one task finds as the one before left it."""

    def get(self, key: str, /) -> Any:  # noqa: ANN401 - JSON
        """Return what is kept, None where nothing is."""

    def set(self, key: str, value: Any, /) -> None:  # noqa: ANN401 - JSON
        """Keep it."""


@dataclass(frozen=True)
class Try:
    """A try of a task.

    Attributes:
        key: its own, no other try has it.
        cleared: differs from that of the try before only where somebody had the task, or another of
            its run, run again.
        kept: what the tries of this task keep.
    """

    key: str
    cleared: str
    kept: Kept


@dataclass(frozen=True)
class Runner:
    """Where the API is.

    Attributes:
        url: address of the API.
        token: what it asks for.
        patience: seconds that it may not answer, such as while it is made anew.
        quiet: seconds that one answer may keep silent.
    """

    url: str
    token: str
    patience: float = 300.0
    quiet: float = QUIET_SECONDS

    @classmethod
    def here(cls) -> Runner:
        """Return the platform's own, as this container's environment names it.

        Raises:
            RunnerError: it names none.
        """
        url, place = (
            os.environ.get(name, "") for name in ("RUNNER_API_URL", "RUNNER_API_TOKEN_FILE")
        )
        if not url or not place:
            raise RunnerError(
                "This Airflow knows no runner: set airflow_runner_url and airflow_runner_token in "
                "the inventory."
            )
        return cls(url.rstrip("/"), Path(place).read_text(encoding="utf-8").strip())

    def submit(self, project: str, key: str, asked: Mapping[str, Any]) -> Run:
        """Ask for a run of what was last delivered to a project.

        Args:
            project: its name in the inventory.
            key: the same key is the same run, however often it is asked for.
            asked: `set` (a list, as `dvc exp run --set-param` takes them), `stage` (without one
                all stages run, and what came of them is pushed and recorded), `pipeline`, `force`.

        Raises:
            RunnerError: it was refused, or nobody answers.
        """
        known = self.answer("POST", f"projects/{project}/runs", asked, {"Idempotency-Key": key})
        return Run(self, project, str(known["id"]))

    def submit_once(self, project: str, one: Try, asked: Mapping[str, Any]) -> Run:
        """Return the run that an earlier try asked for, where it goes on or is done; else ask.

        So a try that was killed without a word leaves no run behind that nobody follows or ends.

        Args:
            project: its name in the inventory.
            one: which try of the task asks.
            asked: as for `submit`. Where an earlier try asked otherwise its run is ended.

        Raises:
            RunnerError: it was refused, or nobody answers. What is kept names the earlier run until
                that is ended, so it is the next try's to end it.
        """
        said = {"project": project, "cleared": one.cleared, "asked": dict(asked)}
        known = one.kept.get(KEPT) or {}
        if known.get("said") == said:
            run = self.submit(project, known["key"], asked)
            if run.is_of_use():
                return run
        elif known:
            # that try may have been killed before it heard the answer
            try:
                Run(self, known["said"]["project"], name_of(known["key"])).cancel()
            except RunnerError as error:
                if error.code != HTTPStatus.NOT_FOUND:  # else it never came, or is forgotten
                    raise
        one.kept.set(KEPT, {"key": one.key, "said": said})
        return self.submit(project, one.key, asked)

    def answer(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return what a request is answered; asks again while nobody is there to answer.

        Raises:
            RunnerError: it was refused, or nobody answered in time.
        """
        deadline = time.monotonic() + self.patience
        while True:
            try:
                with self.open(method, path, body, headers) as reply:
                    found: dict[str, Any] = json.load(reply)
                    return found
            except UNANSWERED as error:
                if time.monotonic() > deadline:
                    raise RunnerError(
                        f"The runners' API at {self.url} gave no answer for {self.patience:.0f} s "
                        f"({error}): see that dvc_runner_api is true, and run `make up`."
                    ) from error
            time.sleep(PAUSE)

    def open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send one request.

        Raises:
            RunnerError: it was refused.
            OSError: nobody answers, or not now.
        """
        request = urllib.request.Request(  # noqa: S310 - the platform's own address
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        )
        # a proxy of the environment is for the world outside
        near = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            reply: http.client.HTTPResponse = near.open(request, timeout=self.quiet)
        except urllib.error.HTTPError as error:
            if error.code >= TEMPORARY:
                raise
            raise RunnerError(sentence(error), error.code) from error
        return reply


def name_of(key: str) -> str:
    """Return how the API names the request that is asked for with a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:32]


def sentence(error: urllib.error.HTTPError) -> str:
    """Return why the API refused, as it says it."""
    try:
        said = json.loads(error.read())["detail"]
    except (ValueError, KeyError, TypeError, *UNANSWERED):
        said = f"The runners' API answers {error.code} {error.reason}."
    return str(said)


@dataclass(frozen=True)
class Run:
    """A run that was asked for."""

    runner: Runner
    project: str
    name: str

    @property
    def path(self) -> str:
        """Where the API has it."""
        return f"projects/{self.project}/runs/{self.name}"

    def state(self) -> dict[str, Any]:
        """Return how it stands.

        Raises:
            RunnerError: it is not known, or nobody answers.
        """
        return self.runner.answer("GET", self.path)

    def is_of_use(self) -> bool:
        """Tell whether it is done, or waits or runs and nobody cancelled it.

        Raises:
            RunnerError: it is not known, or nobody answers.
        """
        found = self.state()
        return found["state"] not in ("failed", "cancelled") and not found.get("ending")

    def lines(self) -> Iterator[str]:
        """Give what it says, line by line, until it has ended; a connection may break meanwhile.

        Raises:
            RunnerError: it is not known, or nobody answers.
        """
        offset, rest, over, deadline = 0, b"", False, 0.0
        while True:
            try:
                words = f"{self.path}/log?offset={offset}&follow={'false' if over else 'true'}"
                with self.runner.open("GET", words) as reply:
                    while block := reply.read1(CHUNK):
                        offset += len(block)
                        *whole, rest = (rest + block).split(b"\n")
                        yield from (line.decode(errors="replace") for line in whole)
            except UNANSWERED:
                # it is quiet, or the API is made anew: its state says which
                time.sleep(PAUSE)
                if over and time.monotonic() > deadline:
                    yield "The rest of the log is not to be had."
                    break
            else:
                if over:
                    break
            if not over and self.state()["state"] in ENDED:
                over, deadline = True, time.monotonic() + self.runner.patience
        if rest:
            yield rest.decode(errors="replace")

    def result(self) -> dict[str, Any]:
        """Return what came of it: number, metrics, MLflow runs, the outputs' md5.

        Raises:
            RunnerError: it failed or was cancelled; the sentence is the runner's own.
        """
        found = self.state()
        result = found.get("result") or {}
        if found["state"] != "done" or not result.get("ok", True):
            raise RunnerError(result.get("error") or f"The run is {found['state']}.")
        kept = ("changed", "seconds", "metrics", "params", "mlflow_runs", "outputs")
        return {"id": self.name, "number": found.get("number")} | {
            key: result[key] for key in kept if key in result
        }

    def cancel(self) -> None:
        """End it; one that has ended stays as it is.

        Raises:
            RunnerError: it is not known, or nobody answers.
        """
        try:
            self.runner.answer("DELETE", self.path)
        except RunnerError as error:
            if error.code != HTTPStatus.CONFLICT:
                raise

    def hasty(self) -> Run:
        """Return the same run for somebody who can not wait for the API to be made anew."""
        hasty = replace(self.runner, patience=CANCEL_SECONDS, quiet=CANCEL_QUIET_SECONDS)
        return replace(self, runner=hasty)
