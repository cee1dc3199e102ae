"""A MinIO server for the tests of the module, and names that are cleaned up behind each test."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from minio.deleteobjects import DeleteObject
from minio.error import MinioAdminException
from tests.minio_module.support import MinioServer, Provision, Relay, started


@pytest.fixture(scope="session")
def minio_binary() -> str:
    """The program that MINIO_TEST_BINARY names."""
    binary = os.environ.get("MINIO_TEST_BINARY")
    if not binary:
        pytest.fail(
            pytrace=False,
            reason="these tests need a MinIO server: `make test` starts one; by hand, set "
            "MINIO_TEST_ENDPOINT with MINIO_TEST_ACCESS_KEY and MINIO_TEST_SECRET_KEY, or set "
            "MINIO_TEST_BINARY to a minio program",
        )
    if not os.access(binary, os.X_OK):
        pytest.fail(
            pytrace=False,
            reason=f"MINIO_TEST_BINARY is {binary}, which is no program: give a minio binary",
        )
    return binary


@pytest.fixture(scope="session")
def minio_server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MinioServer]:
    """The server that MINIO_TEST_ENDPOINT names, else one started from MINIO_TEST_BINARY."""
    endpoint = os.environ.get("MINIO_TEST_ENDPOINT")
    if endpoint:
        keys = [os.environ.get(f"MINIO_TEST_{each}", "") for each in ("ACCESS_KEY", "SECRET_KEY")]
        if not all(keys):
            pytest.fail(
                pytrace=False,
                reason=f"MINIO_TEST_ENDPOINT is {endpoint}, but MINIO_TEST_ACCESS_KEY and "
                f"MINIO_TEST_SECRET_KEY are not both set: set them to its root user's keys",
            )
        yield MinioServer(endpoint.removeprefix("http://").rstrip("/"), *keys)
        return
    binary = request.getfixturevalue("minio_binary")
    with started(binary, tmp_path_factory.mktemp("minio")) as server:
        yield server


@dataclass
class Scratch:
    """Names that no other test has; what bears them is removed after the test."""

    server: MinioServer
    prefix: str = field(default_factory=lambda: f"t{secrets.token_hex(4)}")
    users: list[str] = field(default_factory=list)

    def name(self, suffix: str = "a") -> str:
        """Return a name for a bucket or a policy."""
        return f"{self.prefix}-{suffix}"

    def user(self, suffix: str = "a") -> str:
        """Return a name for a user."""
        self.users.append(f"{self.prefix}-{suffix}")
        return self.users[-1]

    def clean(self) -> None:
        """Remove users, then policies, then buckets with all they hold."""
        admin, s3 = self.server.admin(), self.server.s3()
        for user in set(self.users):
            with contextlib.suppress(MinioAdminException):
                admin.user_remove(access_key=user)
        for policy in json.loads(admin.policy_list()):
            if policy.startswith(self.prefix):
                admin.policy_remove(policy_name=policy)
        for bucket in s3.list_buckets():
            if bucket.name.startswith(self.prefix):
                self.empty(bucket.name)
                s3.remove_bucket(bucket_name=bucket.name)

    def empty(self, bucket: str) -> None:
        """Remove every version of every object."""
        s3 = self.server.s3()
        found = list(s3.list_objects(bucket_name=bucket, recursive=True, include_version=True))
        doomed = [DeleteObject(each.object_name or "", each.version_id) for each in found]
        assert not list(s3.remove_objects(bucket_name=bucket, delete_object_list=doomed))


@pytest.fixture
def scratch(minio_server: MinioServer) -> Iterator[Scratch]:
    """Names for this test alone."""
    names = Scratch(minio_server)
    yield names
    names.clean()


@pytest.fixture
def provision(minio_server: MinioServer, tmp_path: Path) -> Provision:
    """The module, pointed at the server."""
    return Provision(minio_server, tmp_path)


@pytest.fixture
def relay(minio_server: MinioServer) -> Iterator[Relay]:
    """A relay that notes what the module asks of the server."""
    with Relay(minio_server.address).running() as running:
        yield running
