"""Evidence of a running platform, read over its inventory's connections, much of it at once."""

from __future__ import annotations

import base64
import json
import shlex
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import testinfra
from testinfra.backend.base import CommandResult
from testinfra.host import Host as Connection

from platform_verify import rooms
from platform_verify.declared import Host, Platform, Service
from platform_verify.evidence import CannotRunError, Json

REMOTE_SECONDS = 900
# the engine that the platform is on, whatever a shell there points its client at
OTHERS = ("API_VERSION", "CERT_PATH", "CONTEXT", "DEFAULT_PLATFORM", "TLS", "TLS_VERIFY")
ENGINE = [
    "env",
    *(word for name in OTHERS for word in ("-u", f"DOCKER_{name}")),
    "DOCKER_HOST=unix:///var/run/docker.sock",
]
PAUSE = 1.0
# what testinfra's own SSH and sudo cannot take, or would show on a command line
ONLY_ANSIBLE = {
    "ansible_become_pass",
    "ansible_become_password",
    "ansible_password",
    "ansible_ssh_pass",
    "ansible_ssh_password",
    "ansible_sudo_pass",
}


class FactError(Exception):
    """A fact could not be read; the sentence says why, `hint` what to do where that is known."""

    def __init__(self, sentence: str, hint: str = "") -> None:
        """Say why, and the next step."""
        super().__init__(sentence)
        self.hint = hint


def connect(name: str, variables: Mapping[str, Any], inventory: str) -> Connection:
    """Return the way to a host; through Ansible itself where testinfra has none of its own."""
    force = (
        bool(ONLY_ANSIBLE & set(variables))
        or variables.get("ansible_connection", "ssh") not in ("local", "ssh", "smart")
        or variables.get("ansible_become_method", "sudo") != "sudo"
    )
    return testinfra.get_host(f"ansible://{name}", ansible_inventory=inventory, force_ansible=force)


def ask(way: Connection, command: str) -> CommandResult:
    """Run a command on a host, once more where this machine could not start a process for it.

    That says nothing of the platform, and a loaded machine may refuse for a moment.

    Raises:
        CannotRunError: it could not be started the second time either.
    """
    try:
        return way.run(command)
    except OSError:
        time.sleep(PAUSE)
    try:
        return way.run(command)
    except OSError as error:
        raise CannotRunError(
            f"this machine cannot start a process ({error}): see its memory and limits, "
            "and judge again"
        ) from error


def told(answer: Mapping[str, Any]) -> str:
    """Say what a request was answered."""
    method = answer.get("method", "GET")
    return f"{method} {answer['url']} is answered {answer['status'] or answer['error']}"


class Facts:
    """What evidence finds on the hosts and in the containers of a platform."""

    def __init__(self, platform: Platform, inventory: str) -> None:
        """Look at every host, then start all other reading.

        Args:
            platform: as declared.
            inventory: path of the inventory that its hosts' variables come from.

        Raises:
            CannotRunError: a host cannot be reached, or has no engine to ask.
        """
        self._platform = platform
        self._evidence = {place: one for one in rooms.all_evidence() for place in one.places}
        self._spent = 0.0
        self._ways = {
            name: connect(name, host.variables, inventory) for name, host in platform.hosts.items()
        }
        self._pool = ThreadPoolExecutor(max_workers=8)
        looks = {
            name: self._pool.submit(self._look, name, host) for name, host in platform.hosts.items()
        }
        self._hosts = {name: look.result() for name, look in looks.items()}
        self._inside: dict[tuple[str, str], Future[Json]] = {
            (place, service): self._pool.submit(self._ask, place, service, platform.promised)
            for place, one in self._evidence.items()
            if place in one.at_once
            for service in one.services(platform.promised)
        }

    def of(self, place: str, name: str, *sources: str, service: str = "") -> Any:  # noqa: ANN401 - whatever JSON that fact is
        """Return a fact from inside a container.

        Args:
            place: as the evidence of a role calls it.
            name: of the fact.
            sources: services that the fact comes from, beside the one whose container it is.
            service: whose container, where the evidence is of several.

        Raises:
            FactError: it could not be read; where a service it comes from is down, that says so.
        """
        self._all_running(sources)
        return self._fact(
            self._inside[place, service or self._evidence[place].service].result(), name
        )

    def answer(
        self, place: str, name: str, given: Mapping[str, Any], *sources: str, service: str = ""
    ) -> Any:  # noqa: ANN401 - whatever JSON that fact is
        """Return a fact that depends on what other facts were; as `of` in all else."""
        self._all_running(sources)
        return self._fact(self._ask(place, service or self._evidence[place].service, given), name)

    def of_host(self, host: str, name: str) -> Any:  # noqa: ANN401 - whatever JSON that fact is
        """Return a fact of a host; raises FactError where it could not be read."""
        return self._fact(self._hosts[host], name)

    def containers(self) -> dict[str, Json]:
        """Return every container that carries the platform's label, by name."""
        return {
            row["name"]: row for host in self._hosts for row in self.of_host(host, "containers")
        }

    def url(self, service: Service, inside: int) -> str:
        """Address, as its host sees it, of a port inside a running service, published or not.

        Raises:
            FactError: the service does not run.
        """
        self._running(service)
        if any(port.inside == inside for port in service.ports):
            return service.url(inside)
        return f"http://{self.containers()[service.containers[0]]['address']}:{inside}"

    def strangers(self, service: Service, requests: Iterable[Mapping[str, Any]]) -> list[Json]:
        """Return what requests without credentials are answered on a running service's host.

        Raises:
            FactError: the service does not run; whoever else answers there is not asked.
        """
        self._running(service)
        try:
            found = self._send(service.host, "", "strangers", {"requests": list(requests)})
        except CannotRunError as error:
            raise FactError(str(error)) from error
        return list(self._fact(found, "answers"))

    def spent(self) -> float:
        """Return the seconds that facts asked for since the last call took to read."""
        spent, self._spent = self._spent, 0.0
        return round(spent, 2)

    def close(self) -> None:
        """Wait for what is still being read."""
        self._pool.shutdown()

    def _fact(self, found: Json, name: str) -> Any:  # noqa: ANN401 - whatever JSON that fact is
        if "cannot_run" in found:
            raise FactError(found["cannot_run"], found.get("hint", ""))
        self._spent += found[name]["seconds"]
        if "error" in found[name]:
            raise FactError(found[name]["error"])
        return found[name]["value"]

    def _look(self, name: str, host: Host) -> Json:
        given = {"platform": host.platform, "directory": host.directory}
        try:
            found = self._send(name, "", "host", given)
        # what testinfra raises where a host does not answer, with the result as its argument
        except (RuntimeError, OSError, ValueError, AssertionError) as error:
            said = getattr(error.args[0] if error.args else error, "stderr", "") or str(error)
            raise CannotRunError(
                f"{name} cannot be reached: {' '.join(said.split())[-300:]}"
            ) from error
        if "cannot_run" in found:
            raise CannotRunError(f"{name}: {found['cannot_run']}")
        return found

    def _running(self, service: Service) -> None:
        """Raise FactError where a service is not up: nobody waits for it or blames others."""
        rows = self._hosts[service.host]["containers"].get("value", [])
        seen = next((row for row in rows if row["name"] == service.container), None)
        state = seen["state"] if seen else "not there"
        if seen and state == "running" and seen["health"] in ("starting", "unhealthy"):
            state = seen["health"]
        if state != "running":
            raise FactError(
                f"{service.container} is {state}, so nothing can be asked of it",
                "`make up` starts what is missing",
            )

    def _all_running(self, services: Iterable[str]) -> None:
        for name in services:
            if name in self._platform.services:
                self._running(self._platform.services[name])

    def _ask(self, place: str, name: str, given: Mapping[str, Any]) -> Json:
        where = self._platform.services.get(name)
        if where is None:
            return {"cannot_run": f"{name} is no part of this platform"}
        try:
            self._running(where)
            return self._send(where.host, where.container, place, given)
        except FactError as error:
            return {"cannot_run": str(error), "hint": error.hint}
        except (CannotRunError, RuntimeError) as error:
            return {"cannot_run": str(error)}

    def _send(self, host: str, container: str, place: str, given: Mapping[str, Any]) -> Json:
        """Read a place on a host, or in one of its containers, and return what was found."""
        python = self._platform.hosts[host].variables.get("ansible_python_interpreter", "python3")
        evidence, start = self._evidence[place], [python]
        if place in evidence.outside:
            image = self.containers()[container]["image"]
            # in the network of a service that is published nowhere
            beside = f"container:{given['beside']}" if given.get("beside") else "host"
            limits = ("--cap-drop=ALL", "--entrypoint=python3")
            options = ("--rm", "-i", f"--network={beside}", *limits)
            start = [*ENGINE, "docker", "run", *options, image]
        elif container:
            start = [*ENGINE, "docker", "exec", "-i", container, "python3"]
        said = base64.b64encode(json.dumps(given).encode()).decode()
        words = ["timeout", str(REMOTE_SECONDS), *start, "-", place, said]
        # by stdin: it reaches places that share no disk with this one
        command = f"echo {evidence.packed} | base64 -d | gzip -d | {shlex.join(words)}"
        done = ask(self._ways[host], command)
        lines = done.stdout.strip().splitlines()
        if done.rc or not lines:
            said = " ".join(done.stderr.split())[-300:] or f"exit code {done.rc}"
            raise CannotRunError(f"{container or host}: {said}")
        found: Json = json.loads(lines[-1])
        return found
