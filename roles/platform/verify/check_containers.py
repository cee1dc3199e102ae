"""What a container of the platform may do to its host, and what strangers may see of it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from platform_verify.declared import Platform, Service
from platform_verify.facts import FactError, Facts

Running = Mapping[str, tuple[Service, Mapping[str, Any]]]
Verdict = Callable[[Iterable[str], str], None]

START = "`make up` starts what is missing; `make logs` shows what a container says"
UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
OWNER_ONLY = "0600"


def bytes_of(limit: str) -> int:
    """Bytes of a limit such as 512m."""
    return int(limit[:-1]) * UNITS[limit[-1]]


@pytest.fixture
def running(platform: Platform, facts: Facts) -> Running:
    """Each container of a declared service by its name, what only runs for a while left out."""
    there = facts.containers()
    lasting = {
        name: one
        for one in platform.services.values()
        for name in one.containers
        if one.stage != "job"
    }
    if absent := [name for name in lasting if name not in there]:
        raise FactError(f"there is no container {', '.join(absent)}", START)
    return {name: (one, there[name]) for name, one in lasting.items()}


def excepted(running: Running) -> str:
    """Say which house rules are broken on purpose, and why."""
    services = {one.name: one for one, _ in running.values()}
    said = [
        f"; {name} is excepted from {rule}: {reason}"
        for name, one in services.items()
        for rule, reason in one.exceptions.items()
    ]
    return "".join(said)


@pytest.mark.promise("Containers run and are healthy", hint=START)
def test_every_declared_container_runs_healthy_and_there_is_no_other(
    platform: Platform, facts: Facts, verdict: Verdict
) -> None:
    there = facts.containers()
    wanted = {name: one for one in platform.services.values() for name in one.containers}
    wrong = [f"{name} is not there" for name in sorted(set(wanted) - set(there))]
    wrong += [f"{name} is there and not declared" for name in sorted(set(there) - set(wanted))]
    for name in sorted(set(wanted) & set(there)):
        seen = there[name]
        if wanted[name].stage == "job":
            if (seen["state"], seen["exit_code"]) != ("exited", 0):
                wrong.append(f"job {name} is {seen['state']}, its code is {seen['exit_code']}")
        elif (seen["state"], seen["health"]) != ("running", "healthy"):
            memory = " (it ran out of memory)" if seen["out_of_memory"] else ""
            said = f": {seen['said']}" if seen["said"] and seen["state"] == "running" else ""
            wrong.append(f"{name} is {seen['state']}, its health is {seen['health']}{memory}{said}")
    verdict(wrong, ", ".join(sorted(platform.services)))


def powers(one: Service, seen: Mapping[str, Any]) -> Iterator[str]:
    """Say what a container may do that it should not, and is not excepted from."""
    name, free = seen["name"], set(one.exceptions)
    if seen["user"] != one.user:
        yield f"{name} runs as {seen['user'] or 'root'}, declared is {one.user}"
    root = 0 in seen["uids"] or seen["user"].partition(":")[0] in ("", "0", "root")
    if root and not free & {"user", "pid"}:
        yield f"{name} has a process of root"
    if "ALL" not in seen["cap_drop"] or (seen["cap_add"] and "cap_add" not in free):
        yield f"{name} has capabilities ({', '.join(seen['cap_add']) or 'the usual ones'})"
    if not any(option.startswith("no-new-privileges") for option in seen["security"]):
        yield f"{name} may gain privileges"
    if seen["privileged"]:
        yield f"{name} is privileged"
    if seen["namespaces"] and not free & {"ipc", "network_mode", "pid"}:
        yield f"{name} shares a namespace of its host"
    if any(mount.endswith("docker.sock") for mount in seen["mounts"]):
        yield f"{name} holds the engine's socket"


@pytest.mark.promise(
    "Containers are not root and cannot become it",
    hint="`make up` puts the declared containers back; look for a compose.yaml changed by hand",
)
def test_no_process_of_a_container_is_root_or_may_become_it(
    running: Running, verdict: Verdict
) -> None:
    users = {uid for _, seen in running.values() for uid in seen["uids"]}
    verdict(
        [sentence for one, seen in running.values() for sentence in powers(one, seen)],
        f"uid {', '.join(map(str, sorted(users)))}; no capabilities, no new privileges"
        + excepted(running),
    )


@pytest.mark.promise("Containers are limited", hint="`make up` puts the declared limits back")
def test_memory_processes_log_and_disk_of_every_container_are_limited(
    running: Running, verdict: Verdict
) -> None:
    wrong = []
    for one, seen in running.values():
        may, name = seen["memory"], seen["name"]
        if may != bytes_of(one.memory):
            wrong.append(f"{name} may use {may or 'all'} bytes of memory, declared is {one.memory}")
        elif seen["swap"] != may:
            wrong.append(f"{name} may swap")
        if seen["pids"] <= 0 and "pids_limit" not in one.exceptions:
            wrong.append(f"{name} may start any number of processes")
        if not seen["log_limit"]:
            wrong.append(f"{name} may log without end")
        if not seen["read_only"] and "read_only" not in one.exceptions:
            wrong.append(f"{name} may write to its own system")
    seen_of = sorted({one.name: one.memory for one, _ in running.values()}.items())
    verdict(wrong, ", ".join(f"{name} {memory}" for name, memory in seen_of) + excepted(running))


def openings(name: str, one: Service | None, seen: Mapping[str, Any]) -> Iterator[str]:
    """Say where a container listens and should not, or should and does not."""
    ports = one.ports if one else ()
    declared = {(port.address, port.port, port.inside, port.protocol) for port in ports}
    published, proxied = (
        {(port["address"], port["port"], port["inside"], port["protocol"]) for port in seen[key]}
        for key in ("ports", "proxies")
    )
    for address, port, inside, _ in sorted((published | proxied) - declared):
        yield f"{name} is open on {address}:{port} (its port {inside}), which is not declared"
    for address, port, _, _ in sorted(declared - published):
        yield f"{name} is not open on {address}:{port}"
    if one and "network_mode" in one.exceptions:
        return  # what listens there is the host's
    known = {inside for _, _, inside, _ in declared} | {*(one.exposed if one else ())}
    for address, port in seen["listeners"]:
        if port not in known and not ipaddress.ip_address(address).is_loopback:
            yield f"something in {name} listens on port {port}, which is not declared"


@pytest.mark.promise(
    "Only the declared ports listen",
    hint="`make up` opens what is declared and nothing else; an address is platform_address or"
    " part of a port (`address:port`)",
)
def test_nothing_listens_but_declared_ports_on_their_declared_address(
    platform: Platform, running: Running, facts: Facts, verdict: Verdict
) -> None:
    services = {name: one for name, (one, _) in running.items()}
    there = sorted(facts.containers().items())
    wrong = [said for name, seen in there for said in openings(name, services.get(name), seen)]
    declared = [port for one in platform.services.values() for port in one.ports]
    verdict(wrong, ", ".join(f"{port.address}:{port.port}" for port in declared))


@pytest.mark.promise(
    "Secrets can be read nowhere",
    hint="close the place that shows it, then change the secret: remove its file below the"
    " inventory's .secrets and run `make up`",
)
def test_no_secret_is_in_an_inspection_a_log_a_command_line_or_a_file(
    platform: Platform, facts: Facts, verdict: Verdict
) -> None:
    wrong, looked_for = [], 0
    logs: set[str] = set()
    for host in platform.hosts:
        seen = facts.of_host(host, "secrets")
        looked_for += seen["looked_for"]
        logs |= set(seen["logs"])
        wrong += [f"{host}: {found}" for found in seen["found"]]
        for file in seen["files"]:
            name = file["name"].partition("/")[0]
            owner = (
                platform.services[name].user.partition(":")[0] if name in platform.services else ""
            )
            if (file["mode"], str(file["uid"])) != (OWNER_ONLY, owner):
                wrong.append(
                    f"{host}: the file of {file['name']} has mode {file['mode']}"
                    f" and uid {file['uid']}, it should be {OWNER_ONLY} and {owner or 'gone'}"
                )
    if not looked_for:
        wrong.append("there is no secret to look for on any host")
    places = ", ".join(["inspections", "logs", "command lines", "files", *sorted(logs)])
    verdict(wrong, f"{looked_for} secrets, in {places}")
