"""Run a DVC project in the runner's container where that is needed, showing what it says."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

sys.path.insert(0, str(Path(__file__).parent.parent / "files" / "image"))
# one implementation of snapshots, here and in the image
from dvc_runner.environments.locks import environment_asked
from dvc_runner.environments.target import Target
from dvc_runner.git import RunnerError
from dvc_runner.handover import objects_here, write_objects
from dvc_runner.parameters import data_request, input_of
from dvc_runner.snapshot import make_snapshot, write_bundle
from dvc_runner.sources import folder_of

POLL_SECONDS = 1.0
# polls without a word: of a run that starts, of a container that is made anew (as in a rotation) or
# that cannot be asked, and of what a new one takes up again once store and tracking server answer
STARTING, AWAY, TAKEN_UP = 10, 60, 200
# a line of what is given to each; a mark ends what each answers, its complaints and its code
SIDE_BY_SIDE = """\
kept=$(mktemp -d) || exit 1
trap 'rm -rf "$kept"' EXIT
for each do
  IFS= read -r given
  {
    printf '%s\\n' "$given" | docker exec -i "$each" dvc_runner check
    echo "$?" >"$kept/$each.code"
  } >"$kept/$each" 2>"$kept/$each.err" &
done
wait
for each do
  for part in "" .err .code; do
    cat "$kept/$each$part"
    echo "$0"
  done
done
"""


@dataclass
class Run:
    """What one project is asked for, and how far that is."""

    project: Mapping[str, Any]
    request: Mapping[str, Any]
    deliveries: Mapping[str, Path]
    state: dict[str, Any]
    objects: Callable[[], Mapping[str, Path]] = dict
    """Looks what the checkout's own cache has of the project's data, by the keys of its objects."""
    asked: str = field(default_factory=lambda: uuid.uuid4().hex)
    offset: int = 0
    quiet: int = 0
    failures: int = 0
    """Polls in a row that nobody answered."""
    was_away: bool = False
    """Its container was not there, and the run is not seen to go on since."""
    complaint: str = ""
    """Why the last poll was not answered, as it was shown."""


class RunnerAction(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """An action that asks runners in their containers."""

    def _ask(
        self, container: str, *words: str, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run a subcommand of a runner in its container and return its JSON answer.

        What is `given` goes by stdin: every user of the host can read a command line.
        """
        options = ["-i"] if given is not None else []
        reply = self._on_host(
            shlex.join([*runner(container, *options), *words]), f"{json.dumps(given)}\n".encode()
        )
        if reply["rc"]:
            said = (reply["stderr"] + reply["stdout"]).strip()
            kind = AwayError if is_away(said) else AnsibleActionFail
            raise kind(explained(container, said))
        answer: dict[str, Any] = json.loads(reply["stdout"] or "{}")
        return answer

    def _on_host(self, command: str, in_data: bytes = b"\n") -> dict[str, Any]:
        """Run a command on the host, in the environment of the play.

        With input to read SSH gives it no terminal, which would mix its two outputs.
        """
        prefix = self._compute_environment_string()
        return dict(self._low_level_execute_command(f"{prefix} {command}", in_data=in_data))


class ActionModule(RunnerAction):
    """Ask each project's runner whether a run is needed; start those, side by side, and wait.

    Arguments: projects (as the filter dvc_runner_listed returns them), environments (as
    dvc_environment returns them), python and machine (as that had them), set,
    grid, force, cache, brought_up (whether the platform was, so a rotation that died before it had
    ended keeps nobody waiting any more).
    """

    TRANSFERS_FILES = True

    def run(
        self, tmp: str | None = None, task_vars: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Run the task."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        errors: dict[str, str] = {}
        runs: list[Run] = []
        projects = self._task.args["projects"]
        # projects of one repository have one work tree of it
        alone: dict[str, threading.Lock] = defaultdict(threading.Lock)

        def made_alone(project: Mapping[str, Any]) -> tuple[Any, ...]:
            with alone[str(project["source"])]:
                return self._request(project)

        with ThreadPoolExecutor() as side:
            made = [side.submit(made_alone, project) for project in projects]
        asked = []
        for project, one in zip(projects, made, strict=True):
            try:
                asked.append((project, *one.result()))
            except (RunnerError, AnsibleActionFail) as error:
                errors[project["name"]] = str(error)
        given = {project["container"]: request for project, request, _, _ in asked}
        states = self._check_all(given) if given else {}
        if self._task.args.get("brought_up") and not self._task.check_mode:
            self._release_from_the_dead(states)
        for project, request, deliveries, objects in asked:
            state = states[project["container"]]
            if isinstance(state, str):
                errors[project["name"]] = state
            else:
                runs.append(Run(project, request, deliveries, state, objects))
        answers = {it.project["name"]: it.state for it in runs}
        needed = [it for it in runs if it.state["needed"]]
        if not self._task.check_mode:
            named = len(self._task.args["projects"]) > 1
            answers |= self._run_all(needed, errors, named=named)
        if errors:
            raise AnsibleActionFail(told(errors))
        changed = any(
            it.state["needed"] if self._task.check_mode else answers[it.project["name"]]["changed"]
            for it in needed
        )
        return result | {"changed": changed, "runs": answers}

    def _release_from_the_dead(self, states: Mapping[str, dict[str, Any] | str]) -> None:
        """Let what waits begin, if a rotation of this machine holds the queue and is no more."""
        for container, state in states.items():
            by = str((state.get("held") or {}).get("by", "")) if isinstance(state, dict) else ""
            if is_dead(by):
                self._ask(container, "release", by)
                return  # all share one queue

    def _run_all(
        self, needed: Iterable[Run], errors: dict[str, str], *, named: bool
    ) -> dict[str, dict[str, Any]]:
        """Start runs and show what they say until each has ended; `errors` gets what failed."""
        going: list[Run] = []
        for it in needed:
            name = it.project["name"]
            mark = f"  {name}: " if named else "  "
            if it.state["running"]:
                Display().display(f"{mark}a run is under way: this one waits, then has its turn")
            else:
                Display().display(f"{mark}running the pipeline: {it.state['reason']}")
            try:
                self._begin(it)
            except (RunnerError, AnsibleActionFail) as error:
                errors[name] = str(error)
                continue
            going.append(it)
        answers: dict[str, dict[str, Any]] = {}
        while going:
            time.sleep(POLL_SECONDS)
            for it in [*going]:
                name = it.project["name"]
                try:
                    answer = self._look(it, f"  {name} | " if named else "  | ")
                except AnsibleActionFail as error:
                    answer = {"ok": False, "error": str(error)}
                if not answer:
                    continue
                going.remove(it)
                answers[name] = answer
                if answer.get("table"):
                    Display().display(str(answer["table"]))
                if not answer["ok"]:
                    # what it said was shown as it was said
                    errors[name] = str(answer["error"])
        return answers

    def _request(
        self, given: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Path], Callable[[], Mapping[str, Path]]]:
        """Return what the runner of a project is asked for, and the files it needs for that.

        And what looks for data in the checkout's own cache, each file of it: for a run alone.
        """
        request: dict[str, Any] = {
            "params": given["params"],
            "data_params": given.get("data_params") or {},
            "force": bool(self._task.args.get("force")),
            "timeout": seconds(given["timeout"]),
            "pipeline": str(given.get("pipeline") or ""),
        }
        request |= {key: words(self._task.args.get(key)) for key in ("set", "grid")}
        deliveries: dict[str, Path] = {}
        cache = Path(self._task.args["cache"]).expanduser()
        folder = folder_of(given, cache)
        # found again: what was fetched since asks for other packages, or its files are faulty.
        # A check builds no image, and would be refused where the packages changed
        request["environment"] = ""
        if (
            given.get("name") in self._task.args.get("environments", {})
            and not self._task.check_mode
        ):
            target = Target.of(self._task.args)
            request["environment"] = environment_asked(given, folder, cache, target).digest
        snapshot = make_snapshot(folder, cache, request["pipeline"])
        bundle = f"{snapshot['id']}.bundle"
        request["snapshot"] = snapshot["id"]
        request["source"] = f"/workspace/inputs/{bundle}"
        deliveries[bundle] = Path(snapshot["repository"])
        if data := given["data"]:
            received: dict[str, Any] = {}
            path = Path(data).expanduser()
            if path.is_file():
                received = input_of(path)
                deliveries[received["name"]] = path
            elif ("/" in data or path.suffix) and "://" not in data:
                raise AnsibleActionFail(
                    f"dvc_runner_data {data} is not a file on the machine that runs Ansible: "
                    "name one that is, a URL, or a source that the project knows."
                )
            request["data"] = data_request(data, given["data_params"], received)
        return request, deliveries, partial(objects_here, folder, snapshot, request["pipeline"])

    def _check_all(self, given: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any] | str]:
        """Ask the runner in each container whether a run is needed, all at once.

        Returns:
            For each container the answer, or what went wrong.
        """
        mark = uuid.uuid4().hex
        lines = "".join(f"{json.dumps(request)}\n" for request in given.values())
        command = shlex.join(["sh", "-c", SIDE_BY_SIDE, mark, *given])
        reply = self._on_host(command, lines.encode())
        said = reply["stdout"].split(f"{mark}\n")[:-1]
        if len(said) != 3 * len(given):
            raise AnsibleActionFail((reply["stderr"] + reply["stdout"]).strip())
        return {
            container: explained(container, (complaint + answer).strip())
            if code.strip() != "0"
            else json.loads(answer)
            for container, (answer, complaint, code) in zip(
                given, zip(*[iter(said)] * 3, strict=True), strict=True
            )
        }

    def _begin(self, it: Run) -> None:
        """Hand over what a run needs, and start it so that it outlives this process."""
        container = it.project["container"]
        objects = it.objects()
        asked = {"keys": [*objects]}
        lacking = self._ask(container, "lacks", given=asked)["keys"] if objects else []
        named = {"objects": f"{it.asked}.objects"} if lacking else {}
        # kept first: what a request to come names stays where another run cleans up
        self._ask(container, "request", it.asked, given={**it.request, **named})
        self._deliver(container, it.deliveries, bool(it.state["known"]))
        if lacking:
            Display().display(f"  handing over {len(lacking)} objects of the checkout's DVC cache")
            with tempfile.TemporaryDirectory(prefix="dvc-objects-") as local:
                archive = Path(local) / "objects"
                write_objects({key: objects[key] for key in lacking}, archive)
                self._deliver(container, {named["objects"]: archive}, snapshot_known=True)
        reply = self._on_host(shlex.join([*runner(container, "-d"), "run", it.asked]))
        if reply["rc"]:
            raise AnsibleActionFail(f"The run could not be started: {reply['stderr']}")

    def _deliver(self, container: str, files: Mapping[str, Path], snapshot_known: bool) -> None:
        """Hand files over to a runner by way of the host."""
        with tempfile.TemporaryDirectory(prefix="dvc-pipeline-") as local:
            for name, path in files.items():
                source = Path(local) / "input"
                if path.is_dir():
                    if snapshot_known:
                        continue
                    write_bundle({"repository": str(path), "id": Path(name).stem}, source)
                else:
                    shutil.copyfile(path, source)  # Ansible expands a dollar in a path
                self._make_tmp_path()
                remote = self._connection._shell.join_path(self._connection._shell.tmpdir, "input")
                self._transfer_file(str(source), remote)
                receive = shlex.join([*runner(container, "-i"), "receive", name])
                reply = self._on_host(f"{receive} < {shlex.quote(remote)}")
                self._remove_tmp_path(self._connection._shell.tmpdir)
                self._connection._shell.tmpdir = None
                if reply["rc"]:
                    raise AnsibleActionFail(
                        f"Handing {name} to the runner failed: {reply['stderr']}"
                    )

    def _look(self, it: Run, mark: str) -> dict[str, Any]:
        """Show what a run has said since the last look, and return its result once it ended.

        Raises:
            AnsibleActionFail: it ended without a result.
        """
        try:
            said = self._ask(it.project["container"], "progress", it.asked, str(it.offset))
        except AnsibleActionFail as error:
            it.failures += 1
            if it.failures > AWAY:
                raise
            away = isinstance(error, AwayError)
            it.was_away = it.was_away or away
            said_now = "The runner is away" if away else f"The runner does not answer ({error})"
            if said_now != it.complaint:
                it.complaint = said_now
                Display().display(f"{mark}{said_now}: this waits for it.")
            return {}
        it.failures, it.complaint = 0, ""
        it.offset = said["offset"]
        for line in said["lines"]:
            Display().display(f"{mark}{line}")
        if said["result"]:
            return dict(said["result"])
        if said["running"]:
            it.quiet, it.was_away = 0, False
            return {}
        # between the start and its first lock there is no run and no result yet
        it.quiet += 1
        if it.quiet > (TAKEN_UP if it.was_away else STARTING):
            raise AnsibleActionFail(
                f"The run in {it.project['container']} ended without a result: its "
                "container was stopped, or it ran out of memory (dvc_runner_memory). "
                "Run again: finished stages are kept."
            )
        return {}


class AwayError(AnsibleActionFail):  # type: ignore[misc]  # Ansible ships no types
    """A container is not there, or does not run."""


def runner(container: str, *options: str) -> list[str]:
    """Return the start of a command that a runner carries out in its container."""
    return ["docker", "exec", *options, container, "dvc_runner"]


def words(value: object) -> list[str]:
    """Read a list, which is one text of words where it is given on a command line."""
    return (
        str(value or "").split() if not isinstance(value, list) else [str(each) for each in value]
    )


def explained(container: str, said: str) -> str:
    """Say what became of a command that should have run in a container."""
    if "No such container" in said:
        return f"{container} is not there: `make up` with this project starts it."
    return f"{container}: {said}"


def holder() -> str:
    """Name who holds a queue: this `ansible-playbook`, whose tasks are processes of their own.

    Containers of one host name count their processes apart, and a number is given again: so its
    namespace and when it began are in the name.
    """
    pid = os.getppid()
    return f"{socket.gethostname()}:{pid}:{namespace()}:{began(pid)}"


def is_dead(by: str) -> bool:
    """Tell whether a holder is no more; of another machine's or container's nobody here knows.

    One of an earlier release is named by host and number alone.
    """
    host, pid, there, since = (*by.split(":"), "", "", "")[:4]
    if host != socket.gethostname() or not pid.isdecimal() or there not in ("", namespace()):
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return bool(since) and began(int(pid)) not in ("", since)


def namespace() -> str:
    """Return which processes are numbered as this one is; empty where that is not to be seen."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").stat().st_ino)
    return ""


def began(pid: int) -> str:
    """Return when a process began, in ticks since the start of its machine; empty if unknown."""
    with suppress(OSError):
        # the name of its program is in parentheses, and may have some itself
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
    return ""


def is_away(said: str) -> bool:
    """Tell whether Docker says that a container is not there, or not yet."""
    return any(word in said for word in ("No such container", "is not running", "is restarting"))


def told(errors: Mapping[str, str]) -> str:
    """Say what went wrong, with the projects' names where there are several."""
    if len(errors) == 1:
        return next(iter(errors.values()))
    return " ".join(f"{name}: {said}" for name, said in errors.items())


def seconds(value: object) -> int:
    """Read a time limit.

    Raises:
        RunnerError: it is no whole number of seconds.
    """
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        raise RunnerError(
            f"dvc_runner_timeout is {value!r}: give a whole number of seconds, or 0 for no limit."
        )
    return number
