"""Who cannot become root is told so, and nobody else is; so is who gives a value of no use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible import context
from tests.unit.conftest import ROLES, load

platform = load("platform/filter_plugins/platform.py")
root = load("platform/filter_plugins/root.py")

Reach = dict[str, Any]
HERE: Reach = {"connection": "local", "become": True, "method": "sudo", "password": False}


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An ordinary user, whose programs are in the directory that is returned."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(context, "CLIARGS", {})
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def sudo(at: Path, code: int) -> None:
    """A sudo that ends so where it must not ask."""
    (at / "sudo").write_text(f"#!/bin/sh\nexit {code}\n")
    (at / "sudo").chmod(0o755)


def test_without_sudo_the_ways_to_be_root_are_named() -> None:
    (said,) = root.without_root(HERE)
    assert "you are uid 1000 and sudo is not installed. Run as root, or install sudo" in said
    assert "-K" not in said  # there is nothing that would take the password


def test_a_sudo_that_wants_a_password_is_told_so(user: Path) -> None:
    sudo(user, 1)
    (said,) = root.without_root(HERE)
    assert "sudo wants a password" in said
    assert all(way in said for way in ("ARGS=-K", "NOPASSWD", "run as root"))
    # a ticket of one terminal does not reach Ansible's workers, which have none
    assert "sudo -v" not in said


def test_a_sudo_that_asks_nothing_is_enough(user: Path) -> None:
    sudo(user, 0)
    assert root.without_root(HERE) == []


@pytest.mark.parametrize(
    "other",
    [{"connection": "ssh"}, {"become": False}, {"method": "doas"}, {"password": True}],
    ids=str,
)
def test_another_way_to_root_is_not_judged_from_here(other: Reach) -> None:
    assert root.without_root(HERE | other) == []


@pytest.mark.parametrize(
    ("said", "refused"), [({"become_ask_pass": True}, False), ({"become": True}, True)]
)
def test_the_command_line_counts(
    said: dict[str, bool], refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "CLIARGS", said)
    assert bool(root.without_root(HERE | {"become": "become_ask_pass" in said})) is refused


def test_root_is_asked_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a process was started"))
    assert root.without_root(HERE) == []


@pytest.fixture
def roles(tmp_path: Path) -> str:
    """A directory of roles with one that wants one variable of each type."""
    kinds = ("str", "int", "bool", "list", "dict")
    options: Reach = {f"web_{kind}": {"type": kind} for kind in kinds}
    options |= {name: {"type": "str"} for name in ("web_port", "web_memory")}
    options |= {"web_names": {"type": "list", "default": ["localhost"]}}
    inner = {"name": {"type": "str"}, "rules": {"type": "dict", "options": {"days": {}}}}
    options |= {"web_users": {"type": "list", "elements": "dict", "options": inner}}
    (tmp_path / "web/meta").mkdir(parents=True)
    (tmp_path / "web/meta/argument_specs.yml").write_text(
        json.dumps({"argument_specs": {"main": {"options": options}}})
    )
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("web_int", value) for value in (3, "3", 0, "0")],
        *[("web_bool", value) for value in (True, "true", "no", "0", 1)],
        ("web_list", []),
        ("web_dict", {"a": 1}),
        ("web_list", None),
        ("web_names", ["a"]),
        *[("web_port", value) for value in ("", None, 80, "80", "0.0.0.0:80", "[::1]:65535")],
        ("web_memory", "512m"),
        ("web_users", [{"name": "a", "rules": {"days": 3}}, {"rules": {}}, {}]),
    ],
)
def test_what_a_role_can_read_is_not_refused(name: str, value: object, roles: str) -> None:
    assert platform.wrong_values({name: value}, roles) == []


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("web_int", "lots", "web_int is 'lots': give a whole number, 0 or more."),
        ("web_int", -1, "web_int is -1: give a whole number, 0 or more."),
        ("web_int", "", "web_int is '': give a whole number, 0 or more."),
        ("web_bool", "perhaps", "web_bool is 'perhaps': give true or false."),
        ("web_list", "a,b", "say -e '{\"web_list\": [...]}', or set it in the inventory."),
        ("web_list", {"key": "word"}, "web_list is no list: give [...]."),
        ("web_dict", ["word"], "web_dict is no dict: give {...}."),
        ("web_names", [], "web_names is empty: give one entry or more, or leave it out."),
        ("web_names", None, "web_names is empty"),
        ("web_port", "http", "web_port is 'http': give a port of the host"),
        ("web_port", "65536", "web_port is '65536': give a port of the host"),
        ("web_port", "0", "web_port is '0': give a port of the host"),
        ("web_port", "localhost:80", "web_port is 'localhost:80': give a port"),
        ("web_memory", "", "web_memory is '': give a limit such as 512m"),
        ("web_memory", "1 GB", "web_memory is '1 GB': give a limit such as 512m"),
        (
            "web_users",
            [{"name": "a"}, {"nam": "b"}],
            "web_users has a key 'nam' that means nothing (did you mean name?): correct or remove",
        ),
        ("web_users", [{"x": "b"}], "web_users has a key 'x' that means nothing (it takes name, r"),
        (
            "web_users",
            [{"rules": {"day": 3}}],
            "web_users.rules has a key 'day' that means nothing",
        ),
        ("web_dict", '{"key": "word"}', "say -e '{\"web_dict\": {...}}', or set it"),
    ],
)
def test_what_no_role_can_read_is_refused_with_what_to_give(
    name: str, value: object, says: str, roles: str
) -> None:
    (said,) = platform.wrong_values({name: value}, roles)
    assert says in said
    assert "word" not in said  # a list or a mapping may hold a secret


def test_only_variables_that_cannot_be_any_text_are_looked_at(roles: str) -> None:
    names = ["web_str", "web_port", "web_int", "web_list", "other", "other_port"]
    assert platform.typed(names, roles) == ["web_int", "web_list", "web_port"]


@pytest.mark.parametrize("said", ["platform_name=lab", '{"platform_name": "lab"}'])
def test_a_platform_is_not_renamed_by_the_command_line(
    said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform.load_extra_vars, "extra_vars", None, raising=False)
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": (said,)})
    (sentence,) = platform.misnamed("lab")
    assert "one inventory is one platform" in sentence
    assert "make new NAME=lab" in sentence


def test_a_name_from_the_inventory_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform.load_extra_vars, "extra_vars", None, raising=False)
    monkeypatch.setattr(context, "CLIARGS", {"extra_vars": ("my_own=1",)})
    assert platform.misnamed("lab") == []


@pytest.mark.parametrize("name", ["", "become_password", "become_pass", "sudo_pass"])
def test_a_password_to_become_root_is_known_by_each_of_its_names(name: str) -> None:
    reach = yaml.safe_load((ROLES / "platform/vars/main.yml").read_text())["__platform_reach"]
    given = ["-e", f"ansible_{name}=given"] if name else []
    done = subprocess.run(
        [
            Path(sys.executable).parent / "ansible",
            *("somewhere", "-i", "somewhere,", "-m", "ansible.builtin.debug"),
            *("-a", json.dumps({"msg": f"known: {reach['password']}"}), *given),
        ],
        cwd=ROLES.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"known: {bool(name)}" in done.stdout
