"""The command line."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import dvc_runner
from dvc_runner.again import reproduce, shell
from dvc_runner.door import NAME, serve_left_over, watch, withdraw_all
from dvc_runner.git import RunnerError
from dvc_runner.handover import lacks, objects_here, write_objects
from dvc_runner.history import compare, runs
from dvc_runner.limits import full_disk
from dvc_runner.need import check
from dvc_runner.outputs import inputs_of, outputs_of
from dvc_runner.parameters import data_request, input_of
from dvc_runner.places import hold, release
from dvc_runner.prune import prune
from dvc_runner.results import read, results
from dvc_runner.run import progress, run_and_report, serve
from dvc_runner.settings import Settings, settings
from dvc_runner.snapshot import make_snapshot, write_bundle
from dvc_runner.ssh import pin
from dvc_runner.state import read_json
from dvc_runner.status import status
from dvc_runner.turns import ask, cancel
from dvc_runner.workspace import fetch, receive, set_up


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    top = argparse.ArgumentParser(
        prog="dvc_runner",
        description=dvc_runner.__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    commands = top.add_subparsers(dest="command", required=True)
    commands.add_parser("idle", help="make the workspace ready, then wait for runs")
    commands.add_parser(
        "results", help="size, md5 and place of the last run's dvc.lock, outputs and logs: JSON"
    )
    commands.add_parser(
        "read", help="write stdin's pieces of files, [place, offset, bytes], to stdout"
    )
    # its data's address may hold a password, so a request is on no command line
    keys = "snapshot, source, params, data, set, grid, force, stage, timeout"
    request = f"stdin's request, JSON with {keys}"
    commands.add_parser("check", help=f"tell whether a run is needed for {request}")
    served = {
        "request": f"keep {request} under a name",
        "run": "wait for the turn of a kept request, and run the pipeline as it says",
        "progress": "what the run of a request says, from a place on",
    }
    for name, text in served.items():
        commands.add_parser(name, help=text).add_argument("id", type=request_id)
    commands.choices["progress"].add_argument("offset", type=int)
    commands.add_parser(
        "cancel", help="end a request that waits or runs, or all; finished stages are kept"
    ).add_argument("id", type=request_id, nargs="?")
    held = commands.add_parser(
        "hold",
        help="have no run begin for so many seconds; who holds the queue, what is in work: JSON",
    )
    held.add_argument("seconds", type=count)
    free = commands.add_parser("release", help="let runs begin again: JSON")
    for one in (held, free):
        one.add_argument("by", help="who holds the queue; another who does goes on doing so")
    commands.add_parser("status", help="state, last run, failure and queue of the project: JSON")
    commands.add_parser("failed", help="stage, code and log of the last run, if it failed: JSON")
    commands.add_parser("history", help="the runs that are kept, the oldest first: JSON")
    commands.add_parser(
        "diff", help="what differs between the last two runs, or those of two numbers: JSON"
    ).add_argument("runs", nargs="*")
    again = commands.add_parser(
        "reproduce",
        help="run all of an earlier run again, in a copy, and compare: a table, then JSON;\n"
        "exit code 0 where every output has the same md5, 2 where one has another",
    )
    again.add_argument("run", help="its number, or the id of its MLflow run")
    again.add_argument("--timeout", type=count, default=0, help="seconds it may take; 0 for any")
    by_hand = commands.add_parser("shell", help="a shell, or a command, in the place of a stage")
    by_hand.add_argument("--failed", action="store_true", help="in what the last run failed with")
    by_hand.add_argument("--stage", default="", help="as DVC calls it")
    by_hand.add_argument("--print", action="store_true", help="print directory and variables")
    by_hand.add_argument("words", nargs="*", help="one word is a line for the shell")
    room = commands.add_parser("prune", help="what the cache has that no kept run needs: JSON")
    room.add_argument("--keep", type=count, help="how many of the last runs stay; all without it")
    room.add_argument("--remote", action="store_true", help="the same in the remote")
    room.add_argument("--yes", action="store_true", help="remove it, and do not only list it")
    commands.add_parser("receive", help="store stdin as an input file").add_argument("name")
    commands.add_parser(
        "inputs", help="md5 of each dependency of a stage, as it lies here now: JSON"
    ).add_argument("stage")
    commands.add_parser(
        "lacks", help="which of stdin's keys of objects are neither here nor in the remote: JSON"
    )
    commands.add_parser("outputs", help="what the project's stages make, as DVC says: JSON")
    commands.add_parser(
        "dvc", help="DVC in the project, with the keys that were given for its SSH remotes"
    ).add_argument("words", nargs=argparse.REMAINDER)
    local = commands.add_parser(
        "local", help="snapshot a project and run it here, without any server"
    )
    local.add_argument("project", type=Path)
    local.add_argument(
        "--data", default="", help="a CSV file, a zip, a URL or the name of a known source"
    )
    local.add_argument(
        "--data-param",
        action="append",
        default=[],
        help="the parameter that holds the data's source, or its sha256",
        metavar="source|sha256=FILE:KEY",
    )
    local.add_argument("--pipeline", default="", help="a dvc.yaml; all of them without")
    local.add_argument(
        "--param", action="append", default=[], help="file:key=JSON value", metavar="FILE:KEY=VALUE"
    )
    local.add_argument(
        "--set", action="append", default=[], help="as for dvc exp run", metavar="FILE:KEY=VALUE"
    )
    local.add_argument(
        "--grid", action="append", default=[], help="the same of several runs", metavar="KEY=A,B"
    )
    return top


def count(text: str) -> int:
    """Take a number of something."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number: give 0 or more")
    return int(text)


def request_id(text: str) -> str:
    """Take the name of a request, which is one of a directory too."""
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no request's name, which is hexadecimal")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run one subcommand; returns the exit code."""
    arguments = parser().parse_args(argv)
    at = replace(settings(os.environ), asked=getattr(arguments, "id", None) or "")
    try:
        return dispatch(arguments, at)
    except (RunnerError, OSError) as error:
        said = str(error) if isinstance(error, RunnerError) else full_disk(at, error)
        if not said:
            raise
        sys.stderr.write(f"{said}\n")
        return 1


ANSWERS: dict[str, Callable[[Settings, argparse.Namespace], Any]] = {
    "cancel": lambda at, given: cancel(at) if given.id else withdraw_all(at),
    "diff": lambda at, given: compare(at, given.runs),
    "failed": lambda at, _: read_json(at.failure),
    "history": lambda at, _: runs(at),
    "hold": lambda at, given: hold(at, given.seconds, given.by),
    "release": lambda at, given: release(at, given.by),
    "status": lambda at, _: status(at),
    "check": lambda at, _: check(at, json.load(sys.stdin)),
    "inputs": lambda at, given: inputs_of(at.project, given.stage),
    "lacks": lambda at, _: {"keys": lacks(at, json.load(sys.stdin)["keys"])},
    "outputs": lambda at, _: [asdict(out) for out in outputs_of(at.project)],
    "prune": lambda at, given: prune(at, given.keep, given.remote, given.yes),
    "progress": lambda at, given: progress(at, given.offset),
    "results": lambda at, _: results(at),
    "receive": lambda at, given: receive(at, given.name, sys.stdin.buffer),
}


CALLS: dict[str, Callable[[Settings, argparse.Namespace], int]] = {
    "dvc": lambda at, given: dvc(at, given.words),
    "local": lambda at, given: run_local(given, at),
    "run": lambda at, _: serve(at),
    "shell": lambda at, given: shell(at, given.failed, given.stage, given.words, given.print),
}


def dispatch(arguments: argparse.Namespace, at: Settings) -> int:
    """Carry out the subcommand."""
    if answer := ANSWERS.get(arguments.command):
        print(json.dumps(answer(at, arguments)))
        return 0
    if call := CALLS.get(arguments.command):
        return call(at, arguments)
    match arguments.command:
        case "idle":
            set_up(at)
            serve_left_over(at)
            if at.inbox:
                watch(at)
            os.execvp("sleep", ["sleep", "infinity"])  # noqa: S606, S607 - nothing to do until a run is asked for
        case "reproduce":
            found = reproduce(at, arguments.run, arguments.timeout)
            print(f"{found['table']}\n{json.dumps(found)}")
            return 0 if found["same"] else 2
        case "request":
            ask(at, json.load(sys.stdin))
        case "read":
            read(json.load(sys.stdin)["pieces"], sys.stdout.buffer)
    return 0


def dvc(at: Settings, words: list[str]) -> int:
    """Run DVC in this process; returns its exit code."""
    from dvc.cli import main as ask_dvc  # noqa: PLC0415 - takes a second

    pin(at.secrets)
    return int(ask_dvc(words))


def run_local(arguments: argparse.Namespace, at: Settings) -> int:
    """Run a project with this process as the runner."""
    if "RUNNER_PROJECT" not in os.environ:
        at = replace(at, name=arguments.project.resolve().name)
    set_up(at)
    found = make_snapshot(arguments.project, at.workspace / "snapshots", arguments.pipeline)
    bundle = at.workspace / "project.bundle"
    write_bundle(found, bundle)
    fetch(at, str(bundle), "")
    params = {
        key: json.loads(value)
        for key, _, value in (item.partition("=") for item in arguments.param)
    }
    request: dict[str, Any] = {"snapshot": found["id"], "params": params}
    request |= {"set": arguments.set, "grid": arguments.grid, "pipeline": arguments.pipeline}
    objects = objects_here(arguments.project, found, arguments.pipeline)
    if lacking := lacks(at, objects):
        request["objects"] = f"{found['id']}.objects"
        write_objects({key: objects[key] for key in lacking}, at.inputs / request["objects"])
    if arguments.data:
        keys = dict(item.split("=", 1) for item in arguments.data_param)
        if missing := {"source", "sha256"} - keys.keys():
            raise RunnerError(
                f"--data {arguments.data} needs the project's parameter for {min(missing)}: "
                f"name it, --data-param {min(missing)}=config.yaml:some.key."
            )
        received: dict[str, Any] = {}
        path = Path(arguments.data)
        if path.is_file():
            received = input_of(path)
            with path.open("rb") as source:
                receive(at, received["name"], source)
        request["data"] = data_request(arguments.data, keys, received)
    state = check(at, request)
    if not state["needed"]:
        print("Nothing to do: the last run is of this project, these parameters and this data.")
        return 0
    return run_and_report(at, request)
