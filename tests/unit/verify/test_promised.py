"""What checks compare with comes from the role that promises it."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from platform_verify import facts, report, rooms


@pytest.fixture(scope="module")
def plugin() -> ModuleType:
    """The action plugin that hands over what is judged."""
    path = rooms.ROLES.parent / "playbooks" / "action_plugins" / "platform_verdict.py"
    spec = importlib.util.spec_from_file_location("platform_verdict", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def promised(plugin: ModuleType, **variables: object) -> dict[str, Any]:
    loader = DataLoader()
    found: dict[str, Any] = plugin.promised(
        [rooms.ROLES / "minio" / "verify"], variables, loader, Templar(loader=loader)
    )
    return found


def test_buckets_and_users_of_the_inventory_are_promised_without_a_secret(
    plugin: ModuleType,
) -> None:
    found = promised(
        plugin,
        key=trust_as_template("dv{{ 'c' }}"),
        minio_buckets=[{"name": "data", "versioning": "yes"}, {"name": "plain"}],
        minio_users=[
            {"access_key": trust_as_template("{{ key }}"), "secret_key": "x", "buckets": ["data"]}
        ],
    )
    assert found == {"buckets": {"data": True, "plain": False}, "users": {"dvc": ["data"]}}


def test_where_the_inventory_says_nothing_the_roles_defaults_hold(plugin: ModuleType) -> None:
    assert promised(plugin) == {"buckets": {}, "users": {}}


def test_behind_a_gateway_the_end_of_a_run_names_the_addresses_that_users_have(
    plugin: ModuleType,
) -> None:
    loader = DataLoader()
    routes = [
        {"path": "/airflow/", "upstream": "http://airflow:8080", "authorization": "{{ none }}"},
        {"path": "/mlflow/", "upstream": "http://mlflow:5000"},
    ]
    room = rooms.ROLES / "gateway" / "verify"
    given = {"gateway_routes": routes, "gateway_url": "https://lab.example:8443"}
    said = plugin.promised([room], given, loader, Templar(loader=loader), plugin.ADDRESSES)
    address = "https://lab.example:8443"
    known_by = {"airflow": f"{address}/airflow/", "mlflow": f"{address}/mlflow/"}
    assert said == {"addresses": known_by}
    port = {"inside": 443, "address": "127.0.0.1", "port": 8443}
    services = {
        name: {"stage": "app", "ports": [port] if name == "gateway" else []}
        for name in ("gateway", "airflow", "runner")
    }
    host = {"platform_promises": {"services": services}, "platform_secrets_directory": "/secrets"}
    lines = plugin.closing(
        {"ansible_play_hosts_all": ["lab"], "hostvars": {"lab": host}, "inventory_dir": "/srv/lab"},
        report.Report(True, "", "mlops", "file", {}, 1.0),
        {"lab": known_by},
    ).splitlines()
    assert "  gateway      https://127.0.0.1:8443" in lines
    assert "  airflow      https://lab.example:8443/airflow/" in lines
    assert "  runner       listens on nothing" in lines


@pytest.mark.parametrize(
    ("inventory", "words"),
    [
        (rooms.ROLES.parent / "inventory/local", ""),
        (rooms.ROLES.parent / "inventory/fraud", " SYSTEM=fraud"),
        (Path("/srv/my lab"), " INVENTORY='/srv/my lab'"),
    ],
    ids=["the one that make takes", "another of this checkout", "elsewhere"],
)
def test_what_to_type_next_means_the_platform_that_was_judged(
    plugin: ModuleType, inventory: Path, words: str
) -> None:
    assert plugin.named(inventory) == words


def test_every_password_that_judging_can_use_is_handed_to_it(plugin: ModuleType) -> None:
    assert plugin.CONNECTION.keys() >= facts.ONLY_ANSIBLE


@pytest.mark.parametrize("known", ["last_run", "snapshot", "params", "mlflow_runs"])
@pytest.mark.parametrize("role", ["dvc_runner", "mlflow"])
def test_the_last_run_of_any_role_is_a_part_of_what_a_verdict_is_of(
    role: str, known: str, plugin: ModuleType
) -> None:
    seals = {
        plugin.fingerprint(
            {
                "ansible_play_hosts_all": ["one"],
                "hostvars": {"one": {f"{role}_result": {"runs": {"churn": {known: run}}}}},
            }
        )
        for run in ({}, {"run_id": "a"}, {"run_id": "b"})
    }
    assert len(seals) == 3


def test_every_step_that_may_change_something_tells_the_verdict_so(plugin: ModuleType) -> None:
    silent = [
        str(path)
        for step, left in plugin.STEPS.items()
        for path in rooms.ROLES.glob(f"*/tasks/{step}")
        if f"register: {path.parts[-3]}_{left}\n" not in path.read_text()
    ]
    assert not silent, "a run with nothing to do would be judged anew each time"
