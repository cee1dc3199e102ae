"""The verdict holds where the platform does, and names what is wrong where it does not."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from tests.infra.conftest import Stack
from tests.infra.faults_support import docker

from platform_verify.report import Report

Fault = Callable[[Stack], AbstractContextManager[object]]

PATIENCE = 240.0
STRANGE_PORT = 7777
OPEN_PORT = 9299
MARK = "mlops-test-verdict"
# as root of MinIO, in the container of its tool
MINIO = """
import sys
from pathlib import Path
from minio import Minio, MinioAdmin
from minio.commonconfig import ENABLED
from minio.credentials import StaticProvider
from minio.versioningconfig import SUSPENDED, VersioningConfig
keys = [Path(f"/run/secrets/root_{name}").read_text().strip() for name in ("user", "password")]
client = Minio(endpoint="minio:9000", access_key=keys[0], secret_key=keys[1], secure=False)
admin = MinioAdmin(endpoint="minio:9000", credentials=StaticProvider(*keys), secure=False)
"""
# as the user of the service whose container it is; puts other bytes at a key, or the former back
OBJECT = """
import os, sys
import boto3
endpoint = os.environ.get("RUNNER_REMOTE_ENDPOINT") or os.environ["MLFLOW_S3_ENDPOINT_URL"]
if keys := os.environ.get("RUNNER_REMOTE_CREDENTIALS"):
    os.environ["AWS_SHARED_CREDENTIALS_FILE"] = keys
os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")
client = boto3.client("s3", endpoint_url=endpoint)
bucket, key, action = sys.argv[1:]
if action == "spoil":
    body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    open("/tmp/kept", "wb").write(body)
    client.put_object(Bucket=bucket, Key=key, Body=b"spoilt" + body)
else:
    client.put_object(Bucket=bucket, Key=key, Body=open("/tmp/kept", "rb").read())
"""

# in any container: names the processes that carry a mark in their environment, and signals them
MARKED = """
import os, sys
from contextlib import suppress
from pathlib import Path
mark, number = sys.argv[1].encode(), int(sys.argv[2])
for process in Path("/proc").glob("[0-9]*"):
    with suppress(OSError):
        if b"MARK=" + mark in (process / "environ").read_bytes().split(b"\\0"):
            os.kill(int(process.name), number)
            print(process.name)
"""


def inside(stack: Stack, service: str, script: str, *words: str) -> str:
    """Run Python in a service's container and return what it prints."""
    return docker("exec", "-i", stack.container(service), "python3", "-", *words, text=script)


def as_root(stack: Stack, call: str) -> None:
    """Make a call as root of MinIO."""
    tool = f"/opt/{stack.name}/bin/minio-admin"
    done = subprocess.run(
        [tool, "python3", "-"],
        input=f"{MINIO}\n{call}",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def last_run(stack: Stack) -> dict[str, str]:
    """What the pipeline recorded of its last run."""
    path = "/workspace/project/logs/last_run.json"
    found: dict[str, str] = json.loads(
        docker("exec", stack.container("dvc-runner-wine"), "cat", path)
    )
    return found


def mlflow(stack: Stack, method: str, path: str, **body: str) -> None:
    """Ask the platform's MLflow."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{stack.variables['mlflow_port']}/api/2.0/mlflow/{path}",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(asked, timeout=20) as reply:  # noqa: S310 - the line above
        assert reply.status == 200


def wait_until_healthy(container: str) -> None:
    """Wait until Docker calls a container healthy."""
    deadline = time.monotonic() + PATIENCE
    while docker("inspect", "--format", "{{.State.Health.Status}}", container) != "healthy":
        assert time.monotonic() < deadline, f"{container} is not healthy after {PATIENCE:.0f} s"
        time.sleep(0.5)


def failed(found: Report) -> dict[str, str]:
    """Name and detail of every check that failed."""
    return {check.name: check.detail for check in found.checks if check.ok is False}


# --- faults: each makes one thing wrong, and right again ----------------------------------------


@contextmanager
def spoilt_data(stack: Stack) -> Iterator[None]:
    md5 = last_run(stack)["data_md5"]
    key = f"files/md5/{md5[:2]}/{md5[2:]}"
    inside(stack, "dvc-runner-wine", OBJECT, "dvc-storage", key, "spoil")
    try:
        yield
    finally:
        inside(stack, "dvc-runner-wine", OBJECT, "dvc-storage", key, "mend")


@contextmanager
def spoilt_artifact(stack: Stack) -> Iterator[None]:
    run = last_run(stack)
    key = f"{run['experiment_id']}/{run['run_id']}/artifacts/pipeline/model.joblib"
    inside(stack, "mlflow", OBJECT, "mlflow-artifacts", key, "spoil")
    try:
        yield
    finally:
        inside(stack, "mlflow", OBJECT, "mlflow-artifacts", key, "mend")


@contextmanager
def another_commit(stack: Stack) -> Iterator[None]:
    run_id = last_run(stack)["run_id"]
    url = f"http://127.0.0.1:{stack.variables['mlflow_port']}/api/2.0/mlflow/runs/get"
    with urllib.request.urlopen(f"{url}?run_id={run_id}", timeout=20) as reply:  # noqa: S310
        tags = {row["key"]: row["value"] for row in json.load(reply)["run"]["data"]["tags"]}
    tag = {"run_id": run_id, "key": "git_commit"}
    mlflow(stack, "POST", "runs/set-tag", **tag, value="0" * 40)
    try:
        yield
    finally:
        mlflow(stack, "POST", "runs/set-tag", **tag, value=tags["git_commit"])


@contextmanager
def no_candidate(stack: Stack) -> Iterator[None]:
    alias = {"name": "wine-quality", "alias": "candidate"}
    mlflow(stack, "DELETE", "registered-models/alias", **alias)
    try:
        yield
    finally:
        version = last_run(stack)["model_version"]
        mlflow(stack, "POST", "registered-models/alias", **alias, version=version)


@contextmanager
def greedy_user(stack: Stack) -> Iterator[None]:
    as_root(stack, "admin.attach_policy(policies=['consoleAdmin'], user='mlflow')")
    try:
        yield
    finally:
        as_root(stack, "admin.detach_policy(policies=['consoleAdmin'], user='mlflow')")


@contextmanager
def public_bucket(stack: Stack) -> Iterator[None]:
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": ["*"]},
                "Action": ["s3:ListBucket"],
                "Resource": ["arn:aws:s3:::mlflow-artifacts"],
            }
        ],
    }
    bucket = "bucket_name='mlflow-artifacts'"
    said = json.dumps(policy)
    as_root(stack, f"client.set_bucket_policy({bucket}, policy={said!r})")
    try:
        yield
    finally:
        as_root(stack, f"client.delete_bucket_policy({bucket})")


@contextmanager
def forgetful_bucket(stack: Stack) -> Iterator[None]:
    def versioning(state: str) -> str:
        config = f"config=VersioningConfig({state})"
        return f"client.set_bucket_versioning(bucket_name='dvc-storage', {config})"

    as_root(stack, versioning("SUSPENDED"))
    try:
        yield
    finally:
        as_root(stack, versioning("ENABLED"))


@contextmanager
def process(stack: Stack, service: str, *words: str) -> Iterator[None]:
    """A further process in a container, ended with its children at the end."""
    docker("exec", "--detach", f"--env=MARK={MARK}", stack.container(service), *words)
    try:
        deadline = time.monotonic() + PATIENCE
        while not inside(stack, service, MARKED, MARK, "0"):
            assert time.monotonic() < deadline, f"{words[0]} did not start in {service}"
        yield
    finally:
        inside(stack, service, MARKED, MARK, str(signal.SIGKILL.value))


@contextmanager
def strange_listener(stack: Stack) -> Iterator[None]:
    server = ["python3", "-m", "http.server", str(STRANGE_PORT), "--directory", "/config"]
    asked = ["docker", "exec", stack.container("mlflow"), "curl", "-s", "-o", "/dev/null"]
    url = f"http://127.0.0.1:{STRANGE_PORT}/"
    with process(stack, "mlflow", *server):
        deadline = time.monotonic() + PATIENCE
        while subprocess.run([*asked, url], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline, f"{url} does not answer in the container"
        yield


@contextmanager
def secret_in_a_command_line(stack: Stack) -> Iterator[None]:
    shell = 'exec sh -c "sleep 600; :" "$(cat /run/secrets/root_password)"'
    with process(stack, "minio", "sh", "-c", shell):
        yield


@contextmanager
def more_memory(stack: Stack) -> Iterator[None]:
    docker("update", "--memory=1200m", "--memory-swap=1200m", stack.container("minio"))
    try:
        yield
    finally:
        docker("update", "--memory=1g", "--memory-swap=1g", stack.container("minio"))


@contextmanager
def stowaway(stack: Stack) -> Iterator[None]:
    """A container that nobody declared, open to every network."""
    image = docker("inspect", "--format", "{{.Image}}", stack.container("dvc-runner-wine"))
    name = f"{stack.name}-stowaway"
    docker(
        *("run", "--detach", "--name", name, "--label", f"mlops.platform={stack.name}"),
        *("--publish", f"0.0.0.0:{OPEN_PORT}:80", "--entrypoint", "sleep", image, "600"),
    )
    try:
        yield
    finally:
        docker("rm", "--force", "--volumes", name)


# fault -> the checks that must fail of it, and what each must say
FAULTS: dict[Fault, dict[str, str]] = {
    spoilt_data: {
        "What dvc.lock names lies in the bucket": "dvc-storage/files/md5/",
        "A fresh clone can pull everything": "data/raw/winequality-red.csv",
    },
    spoilt_artifact: {
        "The run's artifacts lie in the bucket": "artifacts/pipeline/model.joblib is ",
    },
    another_commit: {"The MLflow run names its data and commit": f"git_commit is {'0' * 40}"},
    no_candidate: {"The registered model predicts as the pipeline's": "has no alias candidate"},
    greedy_user: {
        "The MLflow user reaches only its own bucket": "mlflow may list dvc-storage",
    },
    public_bucket: {
        "Buckets exist and keep versions": "mlflow-artifacts has a policy that lets strangers in",
        "Without credentials MinIO only tells its health": "mlflow-artifacts/?list-type=2",
    },
    forgetful_bucket: {
        "Buckets exist and keep versions": "versioning of dvc-storage is Suspended",
    },
    strange_listener: {
        "Only the declared ports listen": f"mlflow listens on port {STRANGE_PORT}",
    },
    secret_in_a_command_line: {"Secrets can be read nowhere": "root_password in the command"},
    more_memory: {"Containers are limited": "may use 1258291200 bytes of memory, declared is 1g"},
    stowaway: {
        "Containers run and are healthy": "stowaway is there and not declared",
        "Only the declared ports listen": f"stowaway is open on 0.0.0.0:{OPEN_PORT}",
    },
}
EXPECTED = [
    pytest.param(check, words, id=f"{fault.__name__}: {check}")
    for fault, checks in FAULTS.items()
    for check, words in checks.items()
]
UNTOUCHED = {
    "MLflow has the run, with its lineage",
    "Containers are not root and cannot become it",
    "The DVC user reaches only its own bucket",
    "MLflow answers to its own names only",
    "MLflow records in the database that is named",
    "The pipeline has run to its end",
}


UNREACHABLE = """
minio:
  hosts:
    far:
      ansible_host: 127.0.0.1
      ansible_port: 1
      minio_root_user: somebody
      minio_root_password: not-a-secret-at-all
"""


@pytest.fixture(scope="module")
def sound(test_platform: Stack) -> tuple[int, Report, str]:
    """The verdict on a platform as it should be."""
    return test_platform.verify()


@pytest.fixture(scope="module")
def faulty(test_platform: Stack) -> tuple[int, Report, str]:
    """The verdict on the same platform with every fault at once; they are mended at once."""
    with ExitStack() as faults:
        for fault in FAULTS:
            faults.enter_context(fault(test_platform))
        return test_platform.verify()


def test_a_platform_whose_pipeline_ran_is_ok_and_every_check_says_what_it_saw(
    sound: tuple[int, Report, str],
) -> None:
    code, found, text = sound
    assert failed(found) == {}, text
    assert (code, found.ok, found.error) == (0, True, "")
    judged = [check for check in found.checks if check.ok is not None]
    assert all(check.detail and not check.hint for check in judged)
    assert all(check.name.split()[0] in text for check in judged)
    assert f"OK: all {len(judged)} checks passed on platform mlops-test" in text


def test_the_verdict_says_which_data_was_used_and_how_well_the_model_does(
    test_platform: Stack, sound: tuple[int, Report, str]
) -> None:
    _, found, text = sound
    synthetic = test_platform.variables["dvc_runner_data"] == "synthetic"
    assert found.data_source == ("synthetic" if synthetic else "file")
    assert f"data: {found.data_source}" in text
    if not synthetic:
        assert f"data: file {Path(test_platform.variables['dvc_runner_data']).name}" in text
    assert 0 < found.metrics["test"]["rmse"] < 2
    assert f"rmse {found.metrics['test']['rmse']:.3f}" in text


@pytest.mark.parametrize(("check", "words"), EXPECTED)
def test_a_fault_fails_its_check_which_names_it_and_says_what_to_do(
    faulty: tuple[int, Report, str], check: str, words: str
) -> None:
    code, found, text = faulty
    wrong = failed(found)
    assert words in wrong.get(check, ""), text
    assert (code, found.ok) == (1, False)
    assert next(row.hint for row in found.checks if row.name == check)


def test_checks_that_no_fault_concerns_still_pass(faulty: tuple[int, Report, str]) -> None:
    _, found, text = faulty
    assert set(failed(found)) & UNTOUCHED == set(), text
    judged = {check.name for check in found.checks if check.ok is not None}
    assert set(failed(found)) | UNTOUCHED == judged


def test_the_verdict_never_shows_a_secret_that_it_found(
    test_platform: Stack, faulty: tuple[int, Report, str]
) -> None:
    _, found, text = faulty
    secrets = Path(f"/opt/{test_platform.name}/services/minio/secrets")
    secret = (secrets / "root_password").read_text().strip()
    assert secret not in text
    assert all(secret not in check.detail for check in found.checks)


def verdict_without(platform: Stack, container: str) -> tuple[int, Report, str]:
    """Judge a platform while a container of it is stopped."""
    docker("stop", container)
    try:
        return platform.verify()
    finally:
        docker("start", container)
        wait_until_healthy(container)


def test_with_mlflow_stopped_the_verdict_says_so_and_still_judges_the_data(
    test_platform: Stack, faulty: tuple[int, Report, str]
) -> None:
    assert faulty[0] == 1
    container = test_platform.container("mlflow")
    code, found, text = verdict_without(test_platform, container)
    wrong = failed(found)
    assert code == 1, text
    assert f"{container} is exited" in wrong["Containers run and are healthy"]
    assert "The MLflow run names its data and commit" in wrong
    assert "What dvc.lock names lies in the bucket" not in wrong
    assert "make up" in text


def test_with_minio_stopped_the_verdict_says_so_of_what_it_holds(
    test_platform: Stack, faulty: tuple[int, Report, str]
) -> None:
    assert faulty[0] == 1
    container = test_platform.container("minio")
    code, found, text = verdict_without(test_platform, container)
    assert code == 1, text
    assert f"{container} is exited" in failed(found)["Buckets exist and keep versions"]


def test_a_mended_platform_is_ok_again(
    test_platform: Stack, faulty: tuple[int, Report, str]
) -> None:
    assert faulty[0] == 1
    code, found, text = test_platform.verify()
    assert (code, failed(found)) == (0, {}), text


def test_where_the_pipeline_never_ran_the_chain_fails_and_all_else_holds(
    fresh_platform: Stack,
) -> None:
    code, found, text = fresh_platform.verify()
    chain = {
        "The pipeline has run to its end",
        "What dvc.lock names lies in the bucket",
        "A fresh clone can pull everything",
        "MLflow has the run, with its lineage",
        "The MLflow run names its data and commit",
        "The run's artifacts lie in the bucket",
        "The registered model predicts as the pipeline's",
    }
    assert set(failed(found)) == chain, text
    assert (code, found.data_source) == (1, "")
    assert "run `make pipeline`" in text


@pytest.mark.parametrize(
    ("inventory", "sentence"),
    [
        ("nowhere", "nowhere"),
        ("all: {hosts: [a", "broken"),
        (
            "all: {hosts: {idle: {platform_name: idle}}}",
            "no host of the inventory runs any service",
        ),
        (
            UNREACHABLE,
            "far cannot be reached: ssh: connect to host 127.0.0.1 port 1",
        ),
    ],
    ids=["no inventory", "no YAML", "nothing to judge", "unreachable host"],
)
def test_where_no_verdict_is_possible_one_sentence_says_why(
    tmp_path: Path, inventory: str, sentence: str
) -> None:
    path = tmp_path / "broken.yml"
    if inventory == "nowhere":
        path = tmp_path / "nowhere"
    else:
        path.write_text(inventory)
    code, found, text = Stack("none", {}, tmp_path, inventory=str(path)).verify()
    assert (code, found.ok, found.checks) == (2, False, ()), text
    assert sentence in found.error
    assert text.startswith("No verdict: ")
    assert "Traceback" not in text
