"""Measure the platform against what the same work takes without it, and write docs/benchmarks.md.

Every figure is a ratio of two things measured in turn in this run, because machines differ. It
makes a platform of its own, `mlops-bench`, and removes it at the end. `--cold` adds the image
builds, which take many minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as machine
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import requests
from tests.bench.behind_gateway import address_of, measured

from platform_inventory import new

ROOT = Path(__file__).parents[2]
NAME = "mlops-bench"
PROJECT = Path("/opt") / NAME
PORTS = {"minio_api_port": "19000", "minio_console_port": "19001", "mlflow_port": "15000"}
STOCK_PORT = 15001
REQUESTS = 200
RUNS = 10_000
WITHOUT_PIPELINE = ("--skip-tags", "pipeline,verify")
AUTHOR = ("-c", "user.name=bench", "-c", "user.email=bench@example.invalid")
TMPFS = "/tmp:mode=1777"  # noqa: S108 - a mount inside the container
DEBUG = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.debug:
        msg: nothing
"""


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    what: str
    figure: str
    bound: str = ""
    holds: bool | None = None

    def markdown(self) -> str:
        """Return the row of a Markdown table."""
        verdict = {None: "", True: "yes", False: "**no**"}[self.holds]
        return f"| {self.what} | {self.figure} | {self.bound} | {verdict} |"


def say(text: str) -> None:
    """Tell the person who waits."""
    sys.stderr.write(f"[{time.strftime('%H:%M:%S')}] {text}\n")


def run(*command: str, at: Path = ROOT, given: str = "") -> str:
    """Run a command that must succeed on `given` and return its output."""
    done = subprocess.run(command, cwd=at, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(
            f"{' '.join(command)} ended with {done.returncode}:\n"
            f"{done.stdout[-3000:]}{done.stderr[-2000:]}"
        )
    return done.stdout


def seconds(action: Callable[[], object]) -> float:
    """Return how long `action` takes, in seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def medians(repeat: int, **actions: Callable[[], object]) -> dict[str, float]:
    """Time several actions in turn, A B C A B C, after a round that does not count; in seconds."""
    taken: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(repeat + 1):
        for name, action in actions.items():
            value = seconds(action)
            if turn:
                taken[name].append(value)
    return {name: statistics.median(values) for name, values in taken.items()}


def latencies(**actions: Callable[[], object]) -> dict[str, float]:
    """Time several requests in turn, many times; medians in milliseconds."""
    return {name: took * 1000 for name, took in medians(REQUESTS, **actions).items()}


def playbook(*arguments: str) -> str:
    """Run the site playbook for the bench platform and return its output."""
    return run("ansible-playbook", "site.yml", *arguments)


def use_inventory(directory: Path) -> None:
    """Write the inventory of the bench platform, which every playbook from now on is run with."""
    variables = {"platform_name": NAME, "platform_identity": NAME, **PORTS}
    if data := os.environ.get("DATA"):
        variables["dvc_runner_data"] = data
    new.write(directory / "inventory" / NAME, ROOT / "inventory/local", variables)
    os.environ["ANSIBLE_INVENTORY"] = str(directory / "inventory" / NAME)


def debug_playbook(directory: Path) -> Callable[[], object]:
    """Return the run of a playbook with one debug task, in the same configuration."""
    path = directory / "debug.yml"
    path.write_text(DEBUG)
    return lambda: run("ansible-playbook", str(path))


def compose(*words: str, project: Path = PROJECT) -> str:
    """Run docker compose on the bench platform's project, or on another one."""
    return run("docker", "compose", "--project-directory", str(project), *words)


def images() -> dict[str, str]:
    """Map each service to its image."""
    text = compose("config", "--format", "json")
    return {name: service["image"] for name, service in json.loads(text)["services"].items()}


def pyinfra(directory: Path) -> Callable[[], object]:
    """Return a pyinfra run that keeps the same containers and as many files."""
    data = {"images": images(), "directory": str(directory)}
    deploy = str(ROOT / "tests/bench/deploy_pyinfra.py")
    data_arguments = [
        word for key, value in data.items() for word in ("--data", f"{key}={json.dumps(value)}")
    ]
    return lambda: run("pyinfra", "-y", *data_arguments, "@local", deploy)


def nothing_to_change(directory: Path, repeat: int) -> list[Row]:
    """Time runs that change nothing."""
    say("nothing to change")
    again = playbook()
    if "changed=0" not in again:
        raise SystemExit(
            "The bench needs a platform with nothing to change, and a run changed it:\n"
            f"{again[-1500:]}"
        )
    took = medians(
        repeat,
        debug=debug_playbook(directory),
        site=playbook,
        without=lambda: playbook(*WITHOUT_PIPELINE),
        compose=lambda: compose("up", "--detach", "--wait"),
    )
    rows = [
        Row("`ansible-playbook`, one debug task", f"{took['debug']:.2f} s"),
        bounded("`site.yml`, pipeline's check included", took["site"], took["debug"], 7),
        bounded("`site.yml` without the pipeline's check", took["without"], took["debug"], 5),
        Row("`docker compose up --wait` by hand", f"{took['compose']:.2f} s"),
    ]
    calls = len(re.findall(r"Using module file", playbook("-vvv")))
    rows.append(Row("module calls that reach the host, in `site.yml`", str(calls)))
    tasks = len(re.findall(r"^TASK \[", again, re.MULTILINE))
    rows.append(Row("tasks, each a process of its own, in `site.yml`", str(tasks)))
    keep = pyinfra(directory)
    try:
        took = medians(repeat, pyinfra=keep)
        rows.append(
            Row("pyinfra, the same containers and as many files", f"{took['pyinfra']:.2f} s")
        )
    finally:
        names = [f"bench-pyinfra-{name}" for name in images()]
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", *names], capture_output=True, check=False
        )
    return rows


def where_time_goes() -> list[str]:
    """Return the slowest tasks of a run that changes nothing, as Markdown."""
    os.environ["ANSIBLE_CALLBACKS_ENABLED"] = "ansible.posix.profile_tasks"
    try:
        output = playbook()
    finally:
        del os.environ["ANSIBLE_CALLBACKS_ENABLED"]
    found = re.findall(r"^(.+?) -{2,} +([0-9.]+)s$", output, re.MULTILINE)[:6]
    return ["| task | seconds |", "|---|---|", *[f"| {task} | {took} |" for task, took in found]]


def bounded(what: str, value: float, base: float, bound: float, unit: str = "s") -> Row:
    """Return a row that compares two measured figures."""
    ratio = value / base
    return Row(
        what, f"{value:.2f} {unit}, {ratio:.2f} times", f"at most {bound:g} times", ratio <= bound
    )


def from_nothing(directory: Path, repeat: int, project: Path = PROJECT) -> list[Row]:
    """Time the start of every container of a project, images built."""
    say("containers absent")
    took: dict[str, list[float]] = {"ours": [], "hand": [], "debug": []}
    for _ in range(repeat):
        compose("down", project=project)
        took["ours"].append(seconds(lambda: playbook(*WITHOUT_PIPELINE)))
        took["debug"].append(seconds(debug_playbook(directory)))
        compose("down", project=project)
        took["hand"].append(seconds(lambda: compose("up", "--detach", "--wait", project=project)))
    middle = {name: statistics.median(values) for name, values in took.items()}
    return [
        Row("`docker compose up --wait` by hand, the same project", f"{middle['hand']:.2f} s"),
        bounded(
            "`site.yml`, Ansible's start-up not counted",
            middle["ours"] - middle["debug"],
            middle["hand"],
            1.5,
        ),
    ]


@contextmanager
def stock_mlflow() -> Iterator[None]:
    """Run MLflow as pip would install it, from the same image: plain asyncio, job runner on."""
    name = f"{NAME}-stock"
    run(
        "docker", "run", "--detach", "--rm", "--name", name, "--entrypoint", "mlflow",
        "--publish", f"127.0.0.1:{STOCK_PORT}:5000",
        "--tmpfs", TMPFS, "--env", "HOME=/tmp",
        "--workdir", "/data", images()["mlflow"],
        "server", "--host=0.0.0.0", "--port=5000", "--workers=2",
        "--backend-store-uri=sqlite:////data/mlflow.db", "--uvicorn-opts=--loop asyncio --http h11",
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{STOCK_PORT}/health")
        yield
    finally:
        subprocess.run(
            ["docker", "rm", "--force", "--volumes", name], capture_output=True, check=False
        )


def wait_for(url: str) -> None:
    """Wait until `url` answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=2).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    raise SystemExit(f"{url} did not answer within 120 s.")


class Tracker:
    """One client of a tracking server, with one connection and one run."""

    def __init__(self, host: str, port: int = 5000) -> None:
        """Open a run on a server."""
        self._base = f"http://{host}:{port}/api/2.0/mlflow"
        self._session = requests.Session()
        # by its address a server does not know itself
        self._session.headers["Host"] = f"localhost:{port}"
        made = self._post("experiments/create", name=f"bench-{time.time_ns()}")
        self._experiment = made["experiment_id"]
        opened = self._post("runs/create", experiment_id=self._experiment)
        self._run = opened["run"]["info"]["run_id"]
        self._step = 0

    def _post(self, path: str, **body: Any) -> Any:  # noqa: ANN401 - JSON
        reply = self._session.post(f"{self._base}/{path}", json=body, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def log_metric(self) -> None:
        """Log one value."""
        self._step += 1
        self._post(
            "runs/log-metric",
            run_id=self._run,
            key="m",
            value=1.0,
            step=self._step,
            timestamp=time.time_ns() // 10**6,
        )

    def make_runs(self, number: int) -> None:
        """Make runs with a metric each."""

        def one(value: int) -> None:
            made = self._post("runs/create", experiment_id=self._experiment)
            metric = {"key": "rmse", "value": value % 977, "step": 0, "timestamp": 1}
            run_id = made["run"]["info"]["run_id"]
            self._post("runs/log-batch", run_id=run_id, metrics=[metric])

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(one, range(number)))

    def search(self) -> None:
        """Ask for the best runs below a bound."""
        self._post(
            "runs/search",
            experiment_ids=[self._experiment],
            filter="metrics.rmse < 900",
            order_by=["metrics.rmse ASC"],
            max_results=100,
        )


def mlflow_latency() -> list[Row]:
    """Compare the p50 of log_metric with that of a stock server."""
    say("MLflow, log_metric")
    with stock_mlflow():
        here = "127.0.0.1"
        ours, stock = Tracker(here, int(PORTS["mlflow_port"])), Tracker(here, STOCK_PORT)
        p50 = latencies(ours=ours.log_metric, stock=stock.log_metric)
    return [
        Row("`log_metric` p50, stock `mlflow server --workers 2`", f"{p50['stock']:.1f} ms"),
        bounded("`log_metric` p50, this platform", p50["ours"], p50["stock"], 0.25, "ms"),
    ]


def held(container: str) -> float:
    """Return the MiB of a container's processes, what they share counted once (PSS)."""
    pids = run("docker", "top", container, "-eo", "pid").split()[1:]
    rollups = [Path("/proc", pid, "smaps_rollup").read_text() for pid in pids]
    return (
        sum(int(re.findall(r"^Pss: +(\d+) kB", text, re.MULTILINE)[0]) for text in rollups) / 1024
    )


def idle_memory() -> list[Row]:
    """Add up what the core's containers hold when nothing is asked of them."""
    say("idle memory")
    time.sleep(20)
    used = {name: held(f"{NAME}-{name}") for name in images()}
    total = sum(used.values())
    detail = ", ".join(f"{name} {value:.0f}" for name, value in used.items())
    return [
        Row(
            "idle memory of the core",
            f"{total:.0f} MiB ({detail})",
            "at most 1024 MiB",
            total <= 1024,
        )
    ]


def data() -> list[Row]:
    """Compare what the runner does with many and with large files to the plainest other way."""
    say("data")
    container, place = f"{NAME}-dvc-runner-wine", "/workspace/bench"
    mc = shutil.which("mc")
    run("docker", "exec", container, "mkdir", place)
    if mc:
        run("docker", "cp", mc, f"{container}:{place}/mc")
    python = ("/opt/dvc/bin/python", "-I", "-", place, "/usr/local/lib")
    words = ("docker", "exec", "-i", container, *python)
    found = json.loads(run(*words, given=(ROOT / "tests/bench/in_runner.py").read_text()))
    run("docker", "exec", container, "rm", "-rf", place)
    status, check = found["tracked"]
    rows = [
        Row("`dvc status`, 20,000 tracked files", f"{status:.2f} s"),
        bounded("the runner's look whether a run is needed", check, status, 3),
    ]
    for name, ways in found.get("transfers", {}).items():
        for way, (by_mc, ours) in ways.items():
            rows.append(Row(f"`mc mirror`, {way} of {name}", f"{by_mc:.2f} s"))
            rows.append(bounded(f"the runner's {way} of {name}, hashed", ours, by_mc, 1.2))
    if not mc:
        rows.append(Row("push and pull", "not measured: no `mc` in PATH"))
    return rows


def ten_projects(directory: Path, repeat: int) -> list[Row]:
    """Compare ten small projects with nothing to do to one of them, in one inventory."""
    say("ten projects")
    entries = {}
    for number in range(10):
        name = f"bench-{number}"
        project = directory / name
        project.mkdir()
        stage = {"make": {"cmd": "echo made >made.txt", "params": ["n"], "outs": ["made.txt"]}}
        (project / "dvc.yaml").write_text(json.dumps({"stages": stage}))
        (project / "params.yaml").write_text(f"n: {number}\n")
        run("git", "init", "--quiet", at=project)
        run("git", "add", "--all", at=project)
        run("git", *AUTHOR, "commit", "--quiet", "-m", "a small one", at=project)
        entries[name] = {"source": str(project), "memory": "256m"}
    own = Path(os.environ["ANSIBLE_INVENTORY"]) / "group_vars/all/zz-ten.yml"
    # the file that is given to the wine project is nothing to these
    own.write_text(json.dumps({"dvc_runner_projects": entries, "dvc_runner_data": ""}))
    pipeline = ("ansible-playbook", "playbooks/pipeline.yml")
    playbook("--skip-tags", "verify")
    took = medians(
        repeat,
        one=lambda: run(*pipeline, "-e", "dvc_runner_project=bench-0"),
        ten=lambda: run(*pipeline),
    )
    own.unlink()
    return [
        Row("one of ten projects, nothing to do", f"{took['one']:.2f} s"),
        bounded("all ten", took["ten"], took["one"], 3),
    ]


def snapshot(directory: Path, repeat: int) -> list[Row]:
    """Compare a snapshot of a repository with what git takes to look at it."""
    say("snapshot")
    sys.path.insert(0, str(ROOT / "roles/dvc_runner/files/image"))
    from dvc_runner.snapshot import make_snapshot  # noqa: PLC0415 - one implementation, in a role

    project = directory / "repository"
    for number in range(5000):
        path = project / f"{number % 100:02d}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n")
    (project / "dvc.yaml").write_text("stages: {}\n")
    run("git", "init", "--quiet", at=project)
    run("git", "add", "--all", at=project)
    run("git", *AUTHOR, "commit", "--quiet", "-m", "five thousand files", at=project)
    took = medians(
        repeat,
        git=lambda: run("git", "status", "--porcelain", at=project),
        ours=lambda: make_snapshot(project, directory / "snapshots"),
    )
    return [
        Row("`git status`, 5,000 files", f"{took['git']:.3f} s"),
        bounded("a snapshot of them", took["ours"] * 1000, took["git"] * 1000, 2, "ms"),
    ]


@contextmanager
def beside(directory: Path, name: str, of: str, **own: str) -> Iterator[Path]:
    """Run one more platform, of the inventory `of`, which playbooks are run with meanwhile."""
    inventory = directory / "inventory" / name
    known = {"platform_name": name, "platform_identity": name}
    new.write(inventory, ROOT / "inventory" / of, {**known, **own})
    core, os.environ["ANSIBLE_INVENTORY"] = os.environ["ANSIBLE_INVENTORY"], str(inventory)
    try:
        playbook(*WITHOUT_PIPELINE)
        yield inventory
    finally:
        run("ansible-playbook", "playbooks/destroy.yml", "-e", "platform_destroy_confirmed=true")
        os.environ["ANSIBLE_INVENTORY"] = core


def everything(directory: Path, repeat: int) -> list[Row]:
    """Measure inventory/full: what it takes to look at, to hold, and MLflow on PostgreSQL."""
    say("all components")
    name = f"{NAME}-full"
    ports = {"gateway_port": "15444", "gateway_http_port": "15081"}
    with beside(directory, name, "full", **ports):
        debug = debug_playbook(directory)
        took = medians(repeat, debug=debug, site=lambda: playbook(*WITHOUT_PIPELINE))
        time.sleep(20)
        label = f"label=mlops.platform={name}"
        names = run("docker", "ps", "--filter", label, "--format", "{{.Names}}").split()
        used = {one.removeprefix(f"{name}-"): held(one) for one in names}
        lab = sum(mib for one, mib in used.items() if not one.startswith(("gateway", "mysql")))
        server, file = (Tracker(address_of(f"{one}-mlflow")) for one in (name, NAME))
        p50 = latencies(server=server.log_metric, file=file.log_metric)
        say(f"  {RUNS} runs for search_runs")
        server.make_runs(RUNS)
        found = statistics.median(seconds(server.search) for _ in range(20)) * 1000
        start = from_nothing(directory, max(2, repeat // 2), Path("/opt", name))
    shutil.rmtree(Path("/srv", name), ignore_errors=True)
    detail = ", ".join(f"{one} {mib:.0f}" for one, mib in sorted(used.items()))
    return [
        Row("`ansible-playbook`, one debug task", f"{took['debug']:.2f} s"),
        bounded("`site.yml` of `full`, nothing to change", took["site"], took["debug"], 6),
        *start,
        Row("idle memory of `full`", f"{sum(used.values()):.0f} MiB ({detail})"),
        Row("of these those of `lab`", f"{lab:.0f} MiB", "at most 3072 MiB", lab <= 3072),
        Row("`log_metric` p50, SQLite", f"{p50['file']:.1f} ms"),
        bounded("`log_metric` p50, PostgreSQL", p50["server"], p50["file"], 1, "ms"),
        Row(
            f"`search_runs` p50, the 100 best of {RUNS:,} runs, PostgreSQL",
            f"{found:.0f} ms",
            "under 300 ms",
            found < 300,
        ),
    ]


def gateway(directory: Path) -> list[Row]:
    """Compare MLflow behind the gateway of inventory/fraud with MLflow itself."""
    say("gateway")
    name, port, own = f"{NAME}-gate", 15443, 15500
    ports = {"gateway_port": str(port), "gateway_http_port": "15080", "mlflow_port": str(own)}
    with beside(directory, name, "fraud", **ports) as inventory:
        took = measured(name, inventory, (port, own, 15444), directory)
    by, alone = "through the gateway, TLS and log-in", "through NGINX with TLS and nothing else"
    ms, rate = took["ms"], took["rate"]
    more, share = ms["gated"] - ms["direct"], rate["gated"] / rate["direct"]
    rows = [
        Row("read of an experiment p50, MLflow itself", f"{ms['direct']:.2f} ms"),
        Row(alone, f"{ms['bare']:.2f} ms"),
        Row(by, f"{ms['gated']:.2f} ms, {more:.2f} ms more", "at most 1 ms more", more <= 1),
        Row("reads a second of four clients, MLflow itself", f"{rate['direct']:.0f}"),
        Row(alone, f"{rate['bare']:.0f}, {rate['bare'] / rate['direct']:.2f} of it"),
        Row(by, f"{rate['gated']:.0f}, {share:.2f} of it", "at least 0.8", share >= 0.8),
    ]
    for way in ("up", "down"):
        one = took[way]
        rows.append(Row(f"artifact of 1 GiB {way}, MLflow itself", f"{one['direct']:.2f} s"))
        rows.append(
            Row(alone, f"{one['bare']:.2f} s, {one['bare'] / one['direct']:.2f} times"),
        )
        # no throughput lost, as far as a few runs can tell
        rows.append(bounded(by, one["gated"], one["direct"], 1.1))
        rows.append(bounded("against NGINX with TLS alone", one["gated"], one["bare"], 1.1))
    return rows


def cold() -> list[Row]:
    """Build every image from nothing, at once, and then each alone on a base of its own."""
    took = {}
    for label, alone in (("together", False), ("alone", True)):
        prefix = f"localhost/mlops-bench-{label}-{os.getpid()}"
        say(f"cold build, {label}")
        took[label] = build(prefix, alone)
    together = sum(took["together"].values())
    total = sum(took["alone"].values())
    detail = ", ".join(f"{name} {value:.0f}" for name, value in took["alone"].items())
    return [
        Row("base, Go build and pip, each alone, added up", f"{total:.0f} s ({detail})"),
        bounded("every image from nothing", together, total, 1.2),
        Row("the same, in minutes", f"{together / 60:.1f} min", "under 10 min", together < 600),
    ]


def build(prefix: str, alone: bool) -> dict[str, float]:
    """Build every image below `prefix`; returns seconds per build, or of all at once."""
    every = ["minio", "minio-admin", "mlflow", "dvc-runner"]
    steps: dict[str, list[str]] = {"all": every}
    if alone:
        steps = {"base": [], **{name: [name] for name in every}}
    taken = {}
    try:
        for name, wanted in steps.items():
            extra = {"bench_prefix": prefix, "bench_root": str(ROOT), "bench_services": wanted}
            began = time.perf_counter()
            run("ansible-playbook", "tests/bench/build.yml", "-e", json.dumps(extra))
            taken[name] = time.perf_counter() - began
            say(f"  {name}: {taken[name]:.0f} s")
    finally:
        listed = run("docker", "images", "--format", "{{.Repository}}:{{.Tag}}").split()
        made = [image for image in listed if image.startswith(prefix)]
        subprocess.run(["docker", "rmi", "--force", *made], capture_output=True, check=False)
    return taken


def report(sections: dict[str, list[Row]], slowest: list[str]) -> str:
    """Return the page."""
    cores, memory = os.cpu_count(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    engine = run("docker", "version", "--format", "{{.Server.Version}}").strip()
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Medians of one run on one machine: its ratios carry over.",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, {memory:.0f} GiB, Linux {machine.release()}",
        f"Docker {engine}, Python {machine.python_version()}.",
    ]
    for title, rows in sections.items():
        lines += ["", f"## {title}", "", "| what | measured | bound | holds |", "|---|---|---|---|"]
        lines += [row.markdown() for row in rows]
    return "\n".join([*lines, "", "## Where the time goes when nothing changes", "", *slowest, ""])


def main() -> int:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=5, help="runs that count (default 5)")
    parser.add_argument(
        "--cold", action="store_true", help="measure image builds too, many minutes"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="SECTION",
        help='print a section of the page, such as "Data", and leave the page as it is',
    )
    parser.add_argument("--output", type=Path, default=ROOT / "docs/benchmarks.md")
    arguments = parser.parse_args()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")
    directory = Path(tempfile.mkdtemp(prefix="mlops-bench-"))
    try:
        say("bringing up the bench platform")
        use_inventory(directory)
        playbook()
        few = max(2, arguments.repeat // 2)
        measures: dict[str, Callable[[], list[Row]]] = {
            "Nothing to change": lambda: nothing_to_change(directory, arguments.repeat),
            "Images built, containers absent": lambda: from_nothing(directory, few),
            "MLflow": mlflow_latency,
            "Memory": idle_memory,
            "Data": data,
            "Snapshot": lambda: snapshot(directory, arguments.repeat),
            # after all that is measured of the project that is shipped
            "Ten projects": lambda: ten_projects(directory, arguments.repeat),
            "Gateway": lambda: gateway(directory),
            "All components": lambda: everything(directory, arguments.repeat),
            **({"Cold": cold} if arguments.cold else {}),
        }
        sections, slowest = {}, where_time_goes()
        for title, measure in measures.items():
            if not arguments.only or title in arguments.only:
                sections[title] = measure()
                say("\n".join(["", *(row.markdown() for row in sections[title])]))
        if arguments.only:
            return 0
        arguments.output.write_text(report(sections, slowest))
        say(f"written: {arguments.output}")
    finally:
        os.environ["CONFIRM"] = "yes"
        subprocess.run(
            ["ansible-playbook", "playbooks/destroy.yml"],
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        shutil.rmtree(directory, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
