"""What the tests of faults share: a copy of the project, playbook runs, a platform of their own."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml
from tests.infra.conftest import ASKED, BIN, ROOT, Stack

from platform_inventory import new

PATIENCE = 180.0
LABEL = "mlops.platform"
DESTROY = "playbooks/destroy.yml"
WITHOUT_PIPELINE = ("--skip-tags", "pipeline,verify")
Variables = Mapping[str, object]


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    text: str

    @property
    def said(self) -> str:
        """All that was printed, on one line: YAML folds a sentence wherever it likes."""
        return " ".join(self.text.split())

    def assert_says(self, *sentences: str) -> None:
        """Assert that a user reads each of these."""
        for sentence in sentences:
            assert sentence in self.said, f"{sentence!r} is not said:\n{self.text}"

    @property
    def changed(self) -> int:
        """The number of changed tasks that the recap counts."""
        return sum(int(number) for number in re.findall(r"changed=(\d+)", self.text))


def wait_for(holds: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition holds; an AssertionError names it where it never does."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for: {what}"
        time.sleep(0.1)


def docker(*words: str, text: str = "", check: bool = True) -> str:
    """Run the docker client with `text` on stdin and return what it prints."""
    done = subprocess.run(
        ["docker", *words], input=text, capture_output=True, text=True, check=False
    )
    assert not check or done.returncode == 0, f"docker {' '.join(words[:4])}: {done.stderr}"
    return done.stdout.strip()


def lives_of(platform: str) -> dict[str, str]:
    """Map each container of a platform to its id and when it was started."""
    names = docker("ps", "--filter", f"label={LABEL}={platform}", "--format", "{{.Names}}")
    return {
        name: docker("inspect", "--format", "{{.Id}} {{.State.StartedAt}}", name)
        for name in names.split()
    }


def left_of(platform: str) -> str:
    """List what carries a platform's label."""
    label = f"label={LABEL}={platform}"
    return " ".join(
        docker(*words, "--quiet", "--filter", label)
        for words in (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
    ).strip()


def image_of(service: str) -> str:
    """Name an image that was built here, so that no test has to fetch one."""
    found = docker("images", "--format", "{{.Repository}}:{{.Tag}}", f"localhost/mlops/{service}")
    assert found, f"no image of {service} on this machine: run `make up` once"
    return found.splitlines()[0]


def gateway(network: str = "bridge") -> str:
    """Return the address under which containers of a network reach this machine: its first."""
    form = "{{(index .IPAM.Config 0).Subnet}}"
    subnet = docker("network", "inspect", "--format", form, network)
    return str(ipaddress.ip_network(subnet)[1])


def free_ports() -> dict[str, str]:
    """Give each published port of a platform one of 127.0.0.1 that nothing listens on."""
    names = new.default_ports(("minio", "mlflow", "dvc_runner"))
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: str(it.getsockname()[1]) for name, it in zip(names, probes, strict=True)}
    for probe in probes:
        probe.close()
    return ports


def git(*words: str, at: Path) -> str:
    """Run git in a repository, whoever owns it, and return what it prints."""
    done = subprocess.run(
        [
            *("git", "-c", "safe.directory=*"),
            *("-c", "user.name=test", "-c", "user.email=test@localhost"),
            *("-C", str(at), *words),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr}"
    return done.stdout.strip()


def copy_project(target: Path, owner: int = 0) -> Path:
    """Copy what git would commit of this project, as a repository with one commit.

    The copy has secrets and files of its own, so that no fault made in it can reach this checkout.
    """
    kinds = ("--cached", "--others", "--exclude-standard")
    for name in filter(None, git("ls-files", "-z", *kinds, at=ROOT).split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    commit_all(target)
    for path in (target, *target.rglob("*")):
        os.chown(path, owner, owner, follow_symlinks=False)
    return target


def commit_all(at: Path) -> None:
    """Make a directory a git repository with everything in it committed."""
    git("init", "--quiet", at=at)
    git("add", "--all", at=at)
    git("commit", "--quiet", "--message", "start", at=at)


@dataclass
class Running:
    """A playbook run that has not ended yet."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def text(self) -> str:
        """What it printed until now."""
        return self.log.read_text(errors="replace")

    def end(self) -> Outcome:
        """Wait for its end."""
        return Outcome(self.process.wait(timeout=PATIENCE * 3), self.text)

    def family(self) -> list[int]:
        """List the process and all that came from it."""
        parents: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(path.parent.name)] = int(fields[1])
        found = [self.process.pid]
        for pid in found:
            found += [child for child, parent in parents.items() if parent == pid]
        return found

    def interrupt(self) -> None:
        """Do what Ctrl-C in a terminal does."""
        os.killpg(self.process.pid, signal.SIGINT)
        self.process.wait(timeout=PATIENCE)

    def kill(self) -> None:
        """Kill the one process that a user sees."""
        self.process.kill()
        self.process.wait(timeout=PATIENCE)

    def kill_family(self) -> None:
        """Kill it and all that came from it, as a machine that goes down does."""
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait(timeout=PATIENCE)


@dataclass
class Platform:
    """A platform that a copy of this project brings up, and what its inventory says of it."""

    checkout: Path
    variables: dict[str, Any] = field(default_factory=dict)
    runs: list[Running] = field(default_factory=list)

    def __post_init__(self) -> None:
        known = {"platform_identity": self.name, **self.variables}
        new.write(self.inventory, self.checkout / "inventory/local", known)

    @property
    def inventory(self) -> Path:
        """Its inventory: beside the checkout, which stays as it was committed."""
        return self.checkout.parent / "inventory" / self.name

    @property
    def name(self) -> str:
        """The platform's name."""
        return str(self.variables["platform_name"])

    @property
    def directory(self) -> Path:
        """Its project on the host."""
        return Path("/opt") / self.name

    @property
    def secrets(self) -> Path:
        """Where its generated secrets are."""
        return self.inventory / ".secrets" / self.name

    def start(
        self,
        *words: str,
        playbook: str = "site.yml",
        env: Mapping[str, str] | None = None,
        given: Variables | None = None,
    ) -> Running:
        """Start a playbook with these further words and variables `given` after -e."""
        log = self.checkout.parent / f"run-{time.monotonic_ns()}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(str(BIN / "ansible-playbook"), "-i", str(self.inventory), playbook),
                    *("-e", json.dumps(given or {}), *words),
                ],
                cwd=self.checkout,
                env={**environment(self.checkout), **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running = Running(process, log)
        self.runs.append(running)
        return running

    def play(
        self,
        *words: str,
        playbook: str = "site.yml",
        env: Mapping[str, str] | None = None,
        given: Variables | None = None,
    ) -> Outcome:
        """Run a playbook to its end."""
        return self.start(*words, playbook=playbook, env=env, given=given).end()

    def up(self, *words: str, given: Variables | None = None) -> Outcome:
        """Run site.yml and insist that it ends well."""
        outcome = self.play(*words, given=given)
        assert outcome.code == 0, outcome.text
        return outcome

    def close(self) -> None:
        """Remove the platform, after whatever a failed test left running."""
        for run in self.runs:
            if run.process.poll() is None:
                run.kill_family()
        outcome = self.play(playbook=DESTROY, given={"platform_destroy_confirmed": True})
        assert outcome.code == 0, outcome.text

    def container(self, service: str) -> str:
        """Return the name of a service's container."""
        return f"{self.name}-{service}"

    def lives(self) -> dict[str, str]:
        """Map each container to its id and when it was started."""
        return lives_of(self.name)

    def left(self) -> str:
        """List what carries the platform's label."""
        return left_of(self.name)

    def assert_whole(self) -> None:
        """Assert that no file of the project is half-written and that no part of one is left."""
        assert yaml.safe_load((self.directory / "compose.yaml").read_text())["name"] == self.name
        for path in self.directory.rglob("*"):
            assert not path.name.startswith("."), f"{path} was left behind"
            assert not path.is_file() or path.stat().st_size, f"{path} is empty"


def environment(checkout: Path) -> dict[str, str]:
    """Return this process's environment for runs in a checkout, without anybody's answers."""
    kept = {key: value for key, value in os.environ.items() if key not in ASKED}
    return {
        **kept,
        "ANSIBLE_CONFIG": str(checkout / "ansible.cfg"),
        "ANSIBLE_NOCOLOR": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


@dataclass
class Gate:
    """An address that containers ask: who waits there has come that far, until it opens."""

    address: str
    asked: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    @property
    def wait_command(self) -> str:
        """Return the shell command that waits until the gate is open."""
        return f"until curl --fail --silent http://{self.address}; do sleep 0.2; done"


@contextmanager
def gate() -> Iterator[Gate]:
    """Serve a gate where containers reach it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            it.asked.set()
            self.send_response(200 if it.opened.is_set() else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer((gateway(), 0), Handler) as server:
        it = Gate(f"{server.server_address[0]!s}:{server.server_address[1]}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield it
        finally:
            it.opened.set()
            server.shutdown()


@contextmanager
def begun(
    platform: Stack, log: Path, playbook: str, given: Mapping[str, Any]
) -> Iterator[subprocess.Popen[bytes]]:
    """A playbook that goes on beside the test, and says it in a file; ended where it has not."""
    with log.open("w") as output:
        running = subprocess.Popen(
            ["ansible-playbook", playbook, "-i", platform.inventory, "-e", json.dumps(given)],
            cwd=ROOT,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield running
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        running.wait()


def assert_refused(outcome: Outcome, platform: Platform) -> None:
    """Assert that a run failed as a user may see it, and left nothing."""
    assert outcome.code != 0
    assert "Traceback" not in outcome.text
    assert outcome.changed == 0
    assert platform.left() == ""
    assert not platform.directory.exists()
