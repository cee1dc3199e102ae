"""Object storage that was not built here: an image of the server alone, a server elsewhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from minio import Minio
from minio.error import S3Error
from tests.infra.conftest import data
from tests.infra.faults_support import Platform, copy_project, docker, free_ports, gateway, image_of
from tests.minio_module.support import MinioServer, free_port, started

SERVER = "/usr/local/bin/minio"
KEYS = {"dvc-outside": "k" * 12 + "-dvc", "mlflow-outside": "k" * 12 + "-mlflow"}


@pytest.fixture(scope="module")
def server_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's program, out of the image that is built here."""
    path = tmp_path_factory.mktemp("server") / "minio"
    container = docker("create", image_of("minio"))
    try:
        docker("cp", f"{container}:{SERVER}", str(path))
    finally:
        docker("rm", "--volumes", container)
    return path


def only(it: Platform, *services: str) -> None:
    """Leave only these services in the inventory of a platform."""
    path = it.inventory / "hosts.yml"
    inventory = yaml.safe_load(path.read_text())
    groups = inventory["all"]["children"]
    inventory["all"]["children"] = {name: groups[name] for name in services}
    path.write_text(yaml.safe_dump(inventory))


# --- an image of the server alone ----------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(server_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of MinIO alone, from an image with no shell, no curl, no Python and no SDK."""
    home = tmp_path_factory.mktemp("bare")
    image = "localhost/mlops-bare-test:1"
    context = home / "context"
    context.mkdir()
    shutil.copy(server_binary, context / "minio")
    (context / "Dockerfile").write_text('FROM scratch\nCOPY minio /minio\nENTRYPOINT ["/minio"]\n')
    docker("build", "--quiet", "--tag", image, str(context))
    it = Platform(
        copy_project(home / "project"),
        {
            "platform_name": "mlops-bare",
            "minio_image": image,
            "minio_data": str(home / "objects"),
            "minio_healthcheck": ["/minio", "--version"],
            "minio_buckets": [{"name": "some-bucket", "versioning": True, "quota": "1g"}],
            "minio_users": [
                {"access_key": "someone", "secret_key": "s" * 12, "buckets": ["some-bucket"]}
            ],
            **free_ports(),
        },
    )
    only(it, "minio")
    try:
        it.up("--skip-tags", "verify")
        yield it
    finally:
        it.close()
        docker("rmi", "--force", image)


def client(it: Platform, secret_key: str) -> Minio:
    """Return a client of the platform's server, of its one user."""
    return Minio(
        endpoint=f"127.0.0.1:{it.variables['minio_api_port']}",
        access_key="someone",
        secret_key=secret_key,
        secure=False,
        region="us-east-1",
    )


def test_an_image_of_the_server_alone_is_healthy_and_provisioned(bare: Platform) -> None:
    container = json.loads(docker("inspect", bare.container("minio")))[0]
    assert container["State"]["Health"]["Status"] == "healthy"
    assert container["Config"]["Image"] == bare.variables["minio_image"]
    assert client(bare, "s" * 12).bucket_exists(bucket_name="some-bucket")
    assert (Path(bare.variables["minio_data"]) / "some-bucket").is_dir()


def test_its_second_run_changes_nothing_and_a_changed_key_is_all_that_the_next_changes(
    bare: Platform,
) -> None:
    assert bare.up("--skip-tags", "verify").changed == 0
    lives = bare.lives()
    user = {**bare.variables["minio_users"][0], "secret_key": "t" * 12}
    changed = bare.up("--skip-tags", "verify", given={"minio_users": [user]})
    assert changed.changed == 1
    assert bare.lives() == lives
    assert client(bare, "t" * 12).bucket_exists(bucket_name="some-bucket")
    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        client(bare, "s" * 12).list_buckets()


# --- a server elsewhere --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def elsewhere(
    server_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MinioServer]:
    """A server outside of every platform, where containers reach it, with buckets and users."""
    directory = tmp_path_factory.mktemp("elsewhere")
    address = f"{gateway()}:{free_port()}"
    with started(str(server_binary), directory, address) as server:
        s3, admin = server.s3(), server.admin()
        for user, key in KEYS.items():
            s3.make_bucket(bucket_name=f"{user}-bucket")
            admin.user_add(access_key=user, secret_key=key)
            with contextlib.suppress(ValueError):
                admin.attach_policy(policies=["readwrite"], user=user)
        yield server


@pytest.fixture(scope="module")
def outside(elsewhere: MinioServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform without MinIO whose pipeline has run through the server elsewhere."""
    home = tmp_path_factory.mktemp("outside")
    endpoint = f"http://{elsewhere.address}"
    dvc, mlflow = KEYS
    it = Platform(
        copy_project(home / "project"),
        {
            "platform_name": "mlops-outside",
            "dvc_runner_cache": str(home / "snapshots"),
            "dvc_runner_data": data(),
            "dvc_runner_remote_url": f"s3://{dvc}-bucket",
            "dvc_runner_s3_endpoint": endpoint,
            "dvc_runner_public_s3_endpoint": endpoint,
            "dvc_runner_s3_access_key": dvc,
            "dvc_runner_s3_secret_key": KEYS[dvc],
            "mlflow_artifacts_destination": f"s3://{mlflow}-bucket",
            "mlflow_s3_endpoint": endpoint,
            "mlflow_s3_access_key": mlflow,
            "mlflow_s3_secret_key": KEYS[mlflow],
            **free_ports(),
        },
    )
    only(it, "mlflow", "dvc_runner")
    try:
        it.up()
        yield it
    finally:
        it.close()


def test_the_pipeline_runs_through_a_store_elsewhere_and_the_verdict_leaves_minio_out(
    outside: Platform, elsewhere: MinioServer
) -> None:
    assert not [name for name in outside.lives() if name.endswith("minio")]
    for user in KEYS:
        assert list(elsewhere.s3().list_objects(bucket_name=f"{user}-bucket", recursive=True))
    report = json.loads((outside.checkout / "reports/verify.json").read_text())
    judged = {check["name"]: check["ok"] for check in report["checks"]}
    assert report["ok"]
    assert judged["Buckets exist and keep versions"] is None
    assert judged["Without credentials MinIO only tells its health"] is None
    assert judged["What dvc.lock names lies in the bucket"]
    assert judged["The run's artifacts lie in the bucket"]
    assert outside.up().changed == 0


# --- an image of MLflow alone --------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform of MLflow alone, from an image with Python and MLflow and nothing of ours."""
    home = tmp_path_factory.mktemp("plain")
    image = "localhost/mlops-plain-test:1"
    less = ("USER root", "RUN rm /usr/bin/tini /usr/bin/curl", "ENTRYPOINT []")
    recipe = "\n".join([f"FROM {image_of('mlflow')}", *less])
    docker("build", "--quiet", "--tag", image, "-", text=recipe)
    asks = "import urllib.request as it; it.urlopen('http://127.0.0.1:5000/health', timeout=8)"
    it = Platform(
        copy_project(home / "project"),
        {
            "platform_name": "mlops-plain",
            "mlflow_image": image,
            "mlflow_data": str(home / "store"),
            "mlflow_healthcheck": ["python3", "-c", asks],
            **free_ports(),
        },
    )
    only(it, "mlflow")
    try:
        it.up("--skip-tags", "pipeline,verify")
        yield it
    finally:
        it.close()
        docker("rmi", "--force", image)


def test_an_ordinary_image_of_mlflow_serves_as_ours_does(plain: Platform) -> None:
    port = plain.variables["mlflow_port"]
    url = f"http://127.0.0.1:{port}/api/3.0/mlflow/server-info"
    with urllib.request.urlopen(url, timeout=20) as reply:
        told = json.load(reply)
    assert not told["multipart_uploads_enabled"]
    assert not told["multipart_downloads_enabled"]
    assert (Path(plain.variables["mlflow_data"]) / "mlflow.db").stat().st_uid == 10001
    assert plain.up("--skip-tags", "pipeline,verify").changed == 0
