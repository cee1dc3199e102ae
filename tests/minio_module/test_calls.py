"""A call as a whole: what it asks for, what it refuses, what it tells, and what it never tells."""

from __future__ import annotations

import ast
import datetime as dt
import http.server
import importlib.util
import ipaddress
import json
import os
import secrets
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ansible
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
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

SHORT = secrets.token_hex(3) + "#"
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


def test_a_call_with_nothing_to_do_makes_eight_reads_and_no_write(
    provision: Provision, scratch: Scratch, relay: Relay
) -> None:
    declared = platform(scratch)
    provision(**declared)
    assert not provision(**declared, via=relay.address).changed
    users = [f"GET /minio/admin/v3/user-info?accessKey={each}" for each in user_names(declared)]
    buckets = [f"GET /{each['name']}?versioning=" for each in declared["buckets"]]
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
    dvc_user, mlflow_user = user_names(before)
    rule = {"id": "x", "expire_days": 3}
    after = {
        "buckets": [
            {"name": dvc, "versioning": False, "quota": 1, "tags": {"a": "b"}, "lifecycle": [rule]},
            {"name": mlflow, "state": "absent", "force": True},
            {"name": scratch.name("new"), "versioning": True},
        ],
        "policies": [
            {"name": dvc, "statements": [statement("s3:GetObject", on=f"{dvc}/*")]},
            {"name": mlflow, "state": "absent"},
            {"name": scratch.name("new"), "statements": [statement("s3:ListBucket", on=dvc)]},
        ],
        "users": [
            {
                "access_key": dvc_user,
                "secret_key": OTHER_SECRET,
                "status": "disabled",
                "policies": [scratch.name("new")],
            },
            {"access_key": mlflow_user, "state": "absent"},
            {"access_key": scratch.user("new"), "secret_key": SECRET, "policies": [dvc]},
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
    for key in ("changed", "results", "diff"):
        assert announced.answer[key] == made.answer[key]
    assert len(made.changes) == 9
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
    before, after = (json.loads(result.answer["diff"][side]) for side in ("before", "after"))
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


def bad(option: str, item: Options) -> Options:
    return {option: [item]}


def bad_policy(**more: object) -> Options:
    rule = {"actions": ["s3:GetObject"], "resources": ["arn:aws:s3:::b/*"], **more}
    return bad("policies", {"name": "p", "statements": [rule]})


def bad_user(**more: object) -> Options:
    return bad("users", {"access_key": "someone", "secret_key": SECRET, **more})


def bad_rule(**rule: object) -> Options:
    return bad("buckets", {"name": "bucket", "lifecycle": [{"id": "x", **rule}]})


V6 = {"IpAddress": {"aws:SourceIp": "2001:db8::1"}}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (bad("buckets", {"name": "UPPER"}), "bucket name 'UPPER' is invalid: use 3 to 63"),
        (bad("buckets", {"name": "ab"}), "bucket name 'ab' is invalid"),
        (bad("buckets", {"name": "a..b"}), "bucket name 'a..b' is invalid"),
        (bad("buckets", {"name": "10.0.0.1"}), "bucket name '10.0.0.1' is invalid"),
        (bad("buckets", {"name": "minio"}), "bucket name 'minio' is invalid"),
        (bad("buckets", {"name": "bucket", "quota": -1}), "bucket bucket: quota is -1: give"),
        (bad("buckets", {"name": "bucket", "tags": {"": "x"}}), "bucket bucket: tag '' is 'x'"),
        (
            bad("buckets", {"name": "bucket", "object_lock": True, "versioning": False}),
            "bucket bucket: object_lock true needs versions",
        ),
        (bad_rule(), "lifecycle rule 'x' does nothing: give expire_days"),
        (bad_rule(expire_days=0), "lifecycle rule 'x': expire_days is 0: give 1"),
        (bad_rule(expire_days=1, expire_delete_markers=True), "exclude each other"),
        (bad("buckets", {"name": "bucket", "colour": "red"}), "buckets.colour"),
        (bad("buckets", {"name": "bucket", "state": "gone"}), "state must be one of"),
        ({"buckets": [{"name": "twice"}, {"name": "twice"}]}, "buckets lists 'twice' twice: merge"),
        (bad("policies", {"name": "p"}), "policy p has no statements: give at least one"),
        (bad("policies", {"name": "a,b", "state": "absent"}), "policy name 'a,b' is invalid"),
        (bad_policy(actions=[]), "policy p, statement 1 has no actions"),
        (bad_policy(actions=["GetObject"]), "action 'GetObject' is invalid: give one"),
        (bad_policy(resources=["b/*"]), "resource 'b/*' is invalid: write arn:aws:s3:::"),
        (bad_policy(resources=[]), "action s3:GetObject has no resources: name"),
        (bad_policy(effect="Maybe"), "effect must be one of: Allow, Deny"),
        (bad_policy(conditions={"StringLike": "x"}), "condition StringLike is 'x': give"),
        (bad_policy(conditions=V6), "'2001:db8::1': write 2001:db8::1/128"),
        (bad_user(secret_key=SHORT), "user someone: the secret key has 7 characters: give 8"),
        (bad_user(secret_key=None), "user someone has no secret_key: give one"),
        (bad_user(access_key="ab"), "user 'ab': the access key has 2 characters: give 3"),
        (bad_user(access_key="a,b"), "user 'a,b': an access key holds no '='"),
        (bad_user(status="asleep"), "status must be one of"),
        ({"users": [{"access_key": "twice", "state": "absent"}] * 2}, "users lists 'twice' twice"),
        ({"wait": -1}, "wait is -1: give 0"),
        ({"endpoint": "nowhere"}, "endpoint 'nowhere' is not an address: give host:port"),
        ({"endpoint": "ftp://a:1"}, "endpoint 'ftp://a:1' is not an address"),
        ({"endpoint": "http://a:1/b"}, "endpoint 'http://a:1/b' is not an address"),
        ({"endpoint": "http://a:1", "secure": True}, "contradicts secure=true: leave one"),
        ({"endpoint": "https://a:1", "ca_file": "/no/ca"}, "ca_file /no/ca is no file"),
        ({"secret_key": None}, "one of the following is required: secret_key, secret_key_file"),
        ({"secret_key": None, "secret_key_file": "/no/key"}, "secret_key_file /no/key cannot be"),
        ({"secret_key_file": "/no/key"}, "mutually exclusive: secret_key|secret_key_file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_refused_by_name_and_value_without_one_write(
    provision: Provision, relay: Relay, options: Options, sentence: str
) -> None:
    given: Options = {"endpoint": f"http://{relay.address}", **options}
    refused = provision.refused(**given)
    assert sentence in refused.message
    assert not refused.answer.get("changed")
    assert relay.writes() == []
    assert SECRET not in refused.text
    assert SHORT not in refused.text


def test_the_root_user_is_no_user_to_make(provision: Provision, minio_server: MinioServer) -> None:
    root = {"access_key": minio_server.access_key, "secret_key": SECRET}
    assert "is the one this call logs in as" in provision.refused(users=[root]).message


def test_the_keys_may_lie_in_files(
    provision: Provision, scratch: Scratch, minio_server: MinioServer, tmp_path: Path
) -> None:
    files = {"access_key": tmp_path / "user", "secret_key": tmp_path / "password"}
    files["access_key"].write_text(minio_server.access_key + "\n")
    files["secret_key"].write_text(minio_server.secret_key + "\n")
    options: Options = dict.fromkeys(files)
    options |= {f"{key}_file": str(path) for key, path in files.items()}
    copied = {"name": scratch.name(), "tags": {"copied-here": minio_server.secret_key}}
    result = provision(buckets=[copied], diff=True, **options)
    assert result.changed
    assert minio_server.secret_key not in result.text
    files["secret_key"].write_text("\n")
    assert f"secret_key is empty in {files['secret_key']}" in provision.refused(**options).message


def test_a_wrong_root_key_is_told_at_once_and_not_shown(
    provision: Provision, relay: Relay, minio_server: MinioServer
) -> None:
    refused = provision.refused(secret_key=OTHER_SECRET, via=relay.address)
    assert f"MinIO at http://{relay.address} did not list its buckets" in refused.message
    assert "SignatureDoesNotMatch" in refused.message
    assert len(relay.requests) == 1
    assert OTHER_SECRET not in refused.text
    assert minio_server.secret_key not in refused.text


def test_a_server_that_does_not_answer_is_named_with_the_last_error(provision: Provision) -> None:
    address = f"127.0.0.1:{free_port()}"
    refused = provision.refused(endpoint=f"http://{address}", wait=1)
    assert f"MinIO at http://{address} did not list its buckets" in refused.message
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
        refused = provision.refused(endpoint=f"http://127.0.0.1:{server.server_port}")
        thread.join()
    assert "the answer is not MinIO's" in refused.message
    assert "give the address of the S3 API as endpoint" in refused.message


def self_signed(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """Return a server context for 127.0.0.1 and the certificate that signs it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = directory / "cert.pem", directory / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    return context, cert_file


@pytest.fixture
def tls(minio_server: MinioServer, tmp_path: Path) -> Iterator[tuple[str, Path]]:
    context, certificate = self_signed(tmp_path)
    with Relay(minio_server.address, context).running() as relay:
        yield relay.address, certificate


def test_tls_is_the_default_and_holds_with_the_ca_that_signed_the_server(
    provision: Provision, scratch: Scratch, tls: tuple[str, Path]
) -> None:
    address, certificate = tls
    declared = platform(scratch)
    assert provision(**declared, endpoint=address, ca_file=str(certificate)).changed
    trusted = provision(**declared, endpoint=f"https://{address}", ca_file=str(certificate))
    assert not trusted.changed


def test_a_certificate_that_nobody_vouches_for_is_refused(
    provision: Provision, tls: tuple[str, Path]
) -> None:
    refused = provision.refused(endpoint=f"https://{tls[0]}")
    assert f"MinIO at https://{tls[0]} did not list its buckets" in refused.message
    assert "CERTIFICATE_VERIFY_FAILED" in refused.message
    assert "waited" not in refused.message


def test_host_and_port_go_without_tls_when_secure_is_false(
    provision: Provision, minio_server: MinioServer
) -> None:
    assert not provision(endpoint=minio_server.address, secure=False).changed


@pytest.mark.parametrize(
    "user",
    [
        {"access_key": "someone", "secret": SECRET},
        {"access_key": "someone", "secret_key": SECRET, "secret_kye": OTHER_SECRET},
        {"access_key": "someone", "secret_key": [SECRET]},
        {"access_key": "someone", "secret_key": {"value": SECRET}},
        {"access_key": "someone", "secret_key": SECRET, "policies": {"a": "b"}},
        SECRET,
    ],
    ids=["misspelt", "misspelt next to it", "list", "dictionary", "wrong type beside", "bare"],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(
    provision: Provision, user: object
) -> None:
    options: Options = {"users": [user], "root_password": OTHER_SECRET}
    result = provision.refused(**options)
    assert SECRET not in result.text
    assert OTHER_SECRET not in result.text


def test_an_endpoint_with_a_password_in_it_is_refused_and_not_repeated(
    provision: Provision,
) -> None:
    refused = provision.refused(endpoint=f"http://root:{SECRET}@127.0.0.1:9000")
    assert "endpoint holds a user name" in refused.message
    assert SECRET not in refused.text


def test_an_interpreter_without_the_minio_package_is_named(
    tmp_path: Path, minio_server: MinioServer
) -> None:
    (tmp_path / "ansible").symlink_to(Path(ansible.__file__).parent)
    options: Options = {
        "endpoint": minio_server.address,
        "access_key": minio_server.access_key,
        "secret_key": minio_server.secret_key,
    }
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
        endpoint: "http://{{ server.address }}"
        access_key: "{{ server.access_key }}"
        secret_key: "{{ server.secret_key }}"
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
    scratch: Scratch, minio_server: MinioServer, tmp_path: Path
) -> None:
    variables: Options = {
        "server": {
            "address": minio_server.address,
            "access_key": minio_server.access_key,
            "secret_key": minio_server.secret_key,
        },
        "declared": platform(scratch),
    }
    checked = play(tmp_path, variables, "--check", "--diff")
    made = play(tmp_path, variables, "--diff")
    again = play(tmp_path, variables, "--diff")
    variables["declared"]["users"][0]["secret_key"] = SHORT
    refused = play(tmp_path, variables)
    assert "changed=1" in checked
    assert '+    "secret": "changed"' in checked
    assert "changed=1" in made
    assert "changed=0" in again.rsplit("PLAY RECAP", maxsplit=1)[-1]
    assert "the secret key has 7 characters" in refused
    for output in (checked, made, again, refused):
        for secret in (SECRET, minio_server.secret_key, SHORT):
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
    assert all(task["minio_provision"] for task in yaml.safe_load(module.EXAMPLES))
    returned = yaml.safe_load(module.RETURN)["results"]
    assert set(returned["contains"]) == set(returned["sample"][0])


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
        sdk = name in ("Minio", "MinioAdmin", "StaticProvider", "DeleteObject", "Rule", "Filter")
        if is_client(node.func) or sdk or (name == "partial" and is_client(node.args[0])):
            assert not positional, ast.unparse(node)
            keyword_calls += 1
    assert keyword_calls > 20


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
