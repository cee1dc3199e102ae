"""A call as a whole: what it asks for, what it refuses, what it tells, and what it never tells."""

from __future__ import annotations

import ast
import http.server
import importlib.util
import json
import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import ansible
import pytest
import yaml
from tests.minio_module.conftest import Scratch
from tests.minio_module.support import (
    MODULE,
    ROLE,
    MinioServer,
    Options,
    Provision,
    Relay,
    free_port,
    run_module,
    statement,
)

SECRET = secrets.token_urlsafe(16)
OTHER_SECRET = secrets.token_urlsafe(16)


def platform(scratch: Scratch, secret: str = SECRET) -> Options:
    """Return two buckets, two policies and two users, as a platform has them."""
    services = ("dvc", "mlflow")
    names = [scratch.name(each) for each in services]
    return {
        "buckets": [{"name": name, "versioning": True} for name in names],
        "policies": [
            {"name": name, "statements": [statement("s3:ListBucket", on=name)]} for name in names
        ],
        "users": [
            {"access_key": scratch.user(each), "secret_key": secret, "policies": [name]}
            for each, name in zip(services, names, strict=True)
        ],
    }


def user_names(declared: Options) -> list[str]:
    return [each["access_key"] for each in declared["users"]]


def test_a_call_with_nothing_to_do_makes_twelve_reads_and_no_write(
    provision: Provision, scratch: Scratch, relay: Relay
) -> None:
    declared = platform(scratch)
    provision(**declared)
    assert not provision(**declared, via=relay.address).changed
    users = [f"GET /minio/admin/v3/user-info?accessKey={each}" for each in user_names(declared)]
    buckets = [
        request
        for name in (each["name"] for each in declared["buckets"])
        for request in (
            f"GET /{name}?versioning=",
            f"GET /{name}?lifecycle=",
            f"GET /minio/admin/v3/get-bucket-quota?bucket={name}",
        )
    ]
    assert sorted(relay.requests) == sorted(
        [
            "GET /",
            "GET /minio/admin/v3/list-canned-policies",
            *buckets,
            *users,
            *["GET /"] * len(users),  # signed by each user: its key holds
        ]
    )


def every_kind_of_change(scratch: Scratch) -> tuple[Options, Options]:
    """Return what there is before, and a declaration that changes all of it."""
    before = platform(scratch)
    dvc, mlflow = (each["name"] for each in before["buckets"])
    rule = {"id": "x", "expire_days": 3}
    after = {
        "buckets": [
            {"name": dvc, "quota": 1, "lifecycle": [rule]},
            {"name": scratch.name("new"), "versioning": True},
        ],
        "policies": [
            {"name": dvc, "statements": [statement("s3:GetObject", on=f"{dvc}/*")]},
            {"name": scratch.name("new"), "statements": [statement("s3:ListBucket", on=dvc)]},
        ],
        "users": [
            {
                "access_key": user_names(before)[0],
                "secret_key": OTHER_SECRET,
                "policies": [scratch.name("new")],
            },
            {"access_key": scratch.user("new"), "secret_key": SECRET, "policies": [mlflow]},
        ],
    }
    return before, after


def test_check_mode_writes_nothing_and_announces_just_what_the_real_call_does(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, relay: Relay
) -> None:
    before, after = every_kind_of_change(scratch)
    provision(**before)
    announced = provision(**after, via=relay.address, check=True, diff=True)
    assert relay.writes() == []
    assert minio_server.answer_to(user_names(before)[0], SECRET) == "ok"
    assert not provision(**before).changed
    made = provision(**after, diff=True)
    for key in ("changed", "changes", "diff"):
        assert announced.answer[key] == made.answer[key]
    assert len(made.changes) == 6
    again = provision(**after, diff=True)
    assert not again.changed
    assert "diff" not in again.answer


def test_check_mode_on_an_empty_server_announces_everything_and_makes_nothing(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    declared = platform(scratch)
    announced = provision(**declared, check=True)
    assert len(announced.changes) == 6
    for bucket in declared["buckets"]:
        assert not minio_server.s3().bucket_exists(bucket_name=bucket["name"])
    assert provision(**declared).changes == announced.changes


def test_the_diff_shows_each_side_and_of_a_secret_only_whether_it_changes(
    provision: Provision, scratch: Scratch
) -> None:
    declared = platform(scratch)
    provision(**declared)
    changed = platform(scratch, OTHER_SECRET)
    changed["users"][1] = declared["users"][1]
    changed["buckets"][0]["quota"] = 5_000_000
    result = provision(**changed, diff=True)
    before, after = (result.answer["diff"][side] for side in ("before", "after"))
    bucket, user = f"bucket {scratch.name('dvc')}", f"user {user_names(declared)[0]}"
    assert set(before) == set(after) == {bucket, user}
    assert (before[bucket]["quota"], after[bucket]["quota"]) == (0, 5_000_000)
    assert (before[user]["secret"], after[user]["secret"]) == ("unchanged", "changed")
    assert SECRET not in result.text
    assert OTHER_SECRET not in result.text


def test_a_fault_half_way_says_what_is_written_and_the_next_call_goes_on_from_there(
    provision: Provision, scratch: Scratch
) -> None:
    declared = platform(scratch)
    good = declared["policies"][1]
    declared["policies"][1] = good | {"statements": [statement("s3:GetObjekt", on="b/*")]}
    failed = provision.refused(**declared)
    assert "unsupported action 's3:GetObjekt'" in failed.message
    assert f"written before: policy {scratch.name('dvc')} created; not tried: " in failed.message
    assert f"bucket {scratch.name('dvc')}" in failed.message.split("not tried: ")[1]
    assert failed.changed
    assert failed.changes == {f"policy {scratch.name('dvc')}": ["created"]}
    declared["policies"][1] = good
    result = provision(**declared)
    assert f"policy {scratch.name('dvc')}" not in result.changes
    assert len(result.changes) == 5
    assert not provision(**declared).changed


def test_a_user_that_was_made_but_got_no_policies_is_finished_by_the_next_call(
    provision: Provision, scratch: Scratch, relay: Relay
) -> None:
    declared = platform(scratch)
    relay.meddle = lambda _method, path: 503 if "/set-user-or-group-policy?" in path else None
    failed = provision.refused(**declared, via=relay.address)
    user = user_names(declared)[0]
    assert f"user {user} created" in failed.message.split("written before: ")[1]
    assert failed.changes[f"user {user}"] == ["created"]
    assert provision(**declared).changes[f"user {user}"] == [f"policies {scratch.name('dvc')}"]
    assert not provision(**declared).changed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"buckets": [{"name": "bucket", "colour": "red"}]}, "buckets.colour"),
        ({"secret_key_file": None}, "missing required arguments: secret_key_file"),
        ({"secret_key_file": "/no/key"}, "the root user's key /no/key cannot be read"),
    ],
)
def test_a_call_that_cannot_be_made_is_refused_without_one_request(
    provision: Provision, relay: Relay, options: Options, sentence: str
) -> None:
    refused = provision.refused(via=relay.address, **options)
    assert sentence in refused.message
    assert relay.requests == []


def test_a_root_key_is_not_shown_where_it_stands_in_an_option_too(
    provision: Provision, scratch: Scratch, minio_server: MinioServer
) -> None:
    rule = {"id": minio_server.secret_key, "expire_days": 1}
    result = provision(buckets=[{"name": scratch.name(), "lifecycle": [rule]}], diff=True)
    assert result.changed
    assert minio_server.secret_key not in result.text


def test_a_wrong_root_key_is_told_at_once_and_not_shown(
    provision: Provision, relay: Relay, minio_server: MinioServer, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text(OTHER_SECRET)
    refused = provision.refused(secret_key_file=str(wrong), via=relay.address)
    assert f"MinIO at {relay.address} did not list its buckets" in refused.message
    assert "SignatureDoesNotMatch" in refused.message
    assert len(relay.requests) == 1
    assert OTHER_SECRET not in refused.text
    assert minio_server.secret_key not in refused.text


def test_a_server_that_does_not_answer_is_named_with_the_last_error(provision: Provision) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused = provision.refused(endpoint=address, wait=1)
    assert f"MinIO at {address} did not list its buckets" in refused.message
    assert "Connection refused (waited 1 s;" in refused.message


def test_a_server_that_is_still_starting_is_waited_for(
    provision: Provision, scratch: Scratch, relay: Relay
) -> None:
    relay.meddle = lambda _method, _path: 503 if len(relay.requests) in (1, 2, 4) else None
    declared = [{"name": scratch.name()}]
    assert provision(buckets=declared, via=relay.address).changed
    relay.meddle = lambda _method, _path: 503
    refused = provision.refused(buckets=declared, via=relay.address, wait=0)
    assert "Server not initialized yet (waited 0 s;" in refused.message


def test_something_else_than_minio_is_told_from_it(provision: Provision) -> None:
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html><br>welcome</html>")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        refused = provision.refused(endpoint=f"127.0.0.1:{server.server_port}")
        thread.join()
    assert "the answer is not MinIO's" in refused.message
    assert "see what runs there" in refused.message


def test_an_interpreter_without_the_minio_package_is_named(
    tmp_path: Path, provision: Provision, minio_server: MinioServer
) -> None:
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    options: Options = {"endpoint": minio_server.address, **provision.keys()}
    result = run_module(options, [sys.executable, "-S"], {"PYTHONPATH": str(tmp_path)})
    assert "the Python package minio cannot be imported by" in result.message
    assert Path(sys.executable).name in result.message
    assert minio_server.secret_key not in result.text


PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  tasks:
    - name: Provision
      minio_provision:
        endpoint: "{{ server.address }}"
        access_key_file: "{{ server.access_key_file }}"
        secret_key_file: "{{ server.secret_key_file }}"
        buckets: "{{ declared.buckets }}"
        policies: "{{ declared.policies }}"
        users: "{{ declared.users }}"
"""


def play(directory: Path, variables: Options, *arguments: str) -> str:
    """Run a playbook with the module as a user does and return all it prints."""
    (directory / "play.yml").write_text(PLAY)
    (directory / "vars.json").write_text(json.dumps(variables))
    tmp = directory / "tmp"
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")),
            *("-i", "localhost,", "-e", f"ansible_python_interpreter={sys.executable}"),
            *("-e", f"@{directory / 'vars.json'}", "-vvv", *arguments),
            str(directory / "play.yml"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ANSIBLE_LIBRARY": str(ROLE / "library"),
            "ANSIBLE_LOCAL_TEMP": str(tmp),
            "ANSIBLE_REMOTE_TEMP": str(tmp),
            "ANSIBLE_LOG_PATH": str(directory / "ansible.log"),
        },
    )
    return done.stdout + done.stderr + (directory / "ansible.log").read_text()


def test_a_playbook_checks_makes_and_keeps_everything_and_never_prints_a_secret(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, tmp_path: Path
) -> None:
    variables: Options = {
        "server": {"address": minio_server.address, **provision.keys()},
        "declared": platform(scratch),
    }
    checked = play(tmp_path, variables, "--check", "--diff")
    made = play(tmp_path, variables, "--diff")
    again = play(tmp_path, variables, "--diff")
    variables["declared"]["users"][0]["policies"] = ["no-such"]
    refused = play(tmp_path, variables)
    assert "changed=1" in checked
    assert '+        "secret": "changed"' in checked
    assert "changed=1" in made
    assert "changed=0" in again.rsplit("PLAY RECAP", maxsplit=1)[-1]
    assert f"did not get user {user_names(variables['declared'])[0]} policies no-such" in refused
    for output in (checked, made, again, refused):
        for secret in (SECRET, minio_server.secret_key):
            assert secret not in output


def test_the_documentation_has_every_option_as_the_module_takes_it() -> None:
    spec = importlib.util.spec_from_file_location("minio_provision", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def documented(options: Options) -> Options:
        return {
            name: {key: value for key, value in option.items() if key not in prose}
            | ({"options": documented(option["suboptions"])} if "suboptions" in option else {})
            for name, option in options.items()
        }

    def taken(options: Options) -> Options:
        return {
            name: {key: value for key, value in option.items() if key != "no_log"}
            | ({"options": taken(option["options"])} if "options" in option else {})
            for name, option in options.items()
        }

    prose = ("description", "suboptions")
    assert documented(yaml.safe_load(module.DOCUMENTATION)["options"]) == taken(module.ARGUMENTS)


def test_the_sdk_is_called_with_keywords_alone_as_its_next_version_demands() -> None:
    def is_client(node: ast.expr) -> bool:
        return isinstance(node, ast.Attribute) and (
            (isinstance(node.value, ast.Attribute) and node.value.attr in ("s3", "admin"))
            or (isinstance(node.value, ast.Name) and node.value.id in ("s3", "admin", "client"))
        )

    keyword_calls = 0
    for node in ast.walk(ast.parse(MODULE.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        positional = node.args[1:] if name == "partial" and is_client(node.args[0]) else node.args
        sdk = name in ("Minio", "MinioAdmin", "StaticProvider", "Rule", "Filter")
        if is_client(node.func) or sdk or (name == "partial" and is_client(node.args[0])):
            assert not positional, ast.unparse(node)
            keyword_calls += 1
    assert keyword_calls > 15


def test_ansible_doc_reads_the_module(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-doc")),
            *("-t", "module", "-M", str(ROLE / "library"), "-j", "minio_provision"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)["minio_provision"]["doc"]
    assert document["attributes"]["check_mode"]["support"] == "full"
