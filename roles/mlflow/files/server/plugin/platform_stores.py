"""MLflow's plug-in for `s3`: every byte passes through the server, none by an address of the store.

MLflow's own repository has clients fetch and send from the store itself, by addresses that only the
server's network knows. This one holds it and says of itself neither that it can do that nor how.
"""

# MLflow has types for a part of itself only
# mypy: disallow-untyped-calls=False
from __future__ import annotations

import asyncio
import errno
import posixpath
import shutil
from collections.abc import AsyncIterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from mimetypes import guess_type
from pathlib import Path
from typing import Any, BinaryIO

from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    PERMISSION_DENIED,
    RESOURCE_DOES_NOT_EXIST,
    TEMPORARILY_UNAVAILABLE,
)
from mlflow.store.artifact.artifact_repo import ArtifactRepository, StreamUploadMixin
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository

# of an upload no more than this is in memory; a file has at most 10,000 parts
PART = 16 * 2**20
# what a download leaves free for the database, which is on the same disk
SPARE = 2**28
REFUSALS = {
    HTTPStatus.FORBIDDEN: PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: RESOURCE_DOES_NOT_EXIST,
}
FULL = ("QuotaExceeded", "StorageFull")


class NoRoomError(MlflowException):
    """There is no room for a file; asking again will not make any, so clients must not."""

    def get_http_status_code(self) -> int:
        """Return the one status for this that no client tries again after."""
        return HTTPStatus.INSUFFICIENT_STORAGE


@contextmanager
def told(what: str) -> Iterator[None]:
    """Turn what the store or the disk refuses into a sentence that reaches the client."""
    try:
        yield
    except ClientError as error:
        reason = error.response["Error"]
        message = f"The artifact store refused {what}: {reason.get('Message') or reason['Code']}"
        if any(word in reason["Code"] for word in FULL):
            raise NoRoomError(message) from error
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        raise MlflowException(message, REFUSALS.get(status, INTERNAL_ERROR)) from error
    except BotoCoreError as error:
        message = f"The artifact store did not answer for {what}: {error}"
        raise MlflowException(message, TEMPORARILY_UNAVAILABLE) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise NoRoomError(f"The server's disk is full: no room to pass on {what}") from error


class Upload:
    """A file on its way into the store: one object, in parts where it is longer than one."""

    def __init__(self, client: BaseClient, bucket: str, key: str) -> None:
        """Begin nothing yet: a short file needs one call."""
        self._client = client
        self._at = {"Bucket": bucket, "Key": key}
        self._kind = {"ContentType": guess_type(key)[0] or "application/octet-stream"}
        self._id: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []

    def part(self, content: bytes) -> None:
        """Send a part that is not the last."""
        if not self._id:
            made = self._client.create_multipart_upload(**self._at, **self._kind)
            self._id = {"UploadId": made["UploadId"]}
        number = {"PartNumber": len(self._parts) + 1}
        sent = self._client.upload_part(**self._at, **self._id, **number, Body=content)
        sums = {key: sent[key] for key in sent if key == "ETag" or key.startswith("Checksum")}
        self._parts.append(number | {k: v for k, v in sums.items() if k != "ChecksumType"})

    def end(self, content: bytes) -> None:
        """Send the last part: from now on the object is there."""
        if not self._id:
            self._client.put_object(**self._at, **self._kind, Body=content)
            return
        self.part(content)
        whole = {"MultipartUpload": {"Parts": self._parts}}
        self._client.complete_multipart_upload(**self._at, **self._id, **whole)
        self._id = {}

    def abort(self) -> None:
        """Leave nothing behind of what has not ended."""
        if self._id:
            self._client.abort_multipart_upload(**self._at, **self._id)


class ServedArtifactRepository(ArtifactRepository, StreamUploadMixin):
    """Artifacts in S3, sent and fetched by the server alone."""

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        """Hold MLflow's own repository of the same address."""
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        self._stored = S3ArtifactRepository(
            artifact_uri, tracking_uri=tracking_uri, registry_uri=registry_uri
        )

    def _at(self, path: str) -> tuple[str, str]:
        bucket, root = self._stored.parse_s3_compliant_uri(self.artifact_uri)
        return bucket, posixpath.join(root, path)

    def _client(self) -> BaseClient:
        return self._stored._get_s3_client()

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Store a file of this machine."""
        with told(Path(local_file).name):
            self._stored.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Store a directory of this machine."""
        with told(local_dir):
            self._stored.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a directory; nothing for a file."""
        with told(path or self.artifact_uri):
            return list(self._stored.list_artifacts(path))

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Remove a file or a directory."""
        with told(artifact_path or self.artifact_uri):
            self._stored.delete_artifacts(artifact_path)

    def download_artifacts(self, artifact_path: str, dst_path: str | None = None) -> str:
        """Bring a file to this machine's disk where there is room for it, or a directory."""
        size = self._size(artifact_path) if artifact_path and dst_path else None
        if size is None:
            return str(super().download_artifacts(artifact_path, dst_path))
        local = self._create_download_destination(artifact_path, dst_path)
        free = shutil.disk_usage(Path(local).parent).free
        if free < size + SPARE:
            raise NoRoomError(
                f"{artifact_path} has {size >> 20} MiB and the server's disk {free >> 20} MiB free,"
                f" of which {SPARE >> 20} are kept: make room on the host and ask again."
            )
        self._download_file(artifact_path, local)
        return str(local)

    def _size(self, path: str) -> int | None:
        bucket, key = self._at(path)
        try:
            head = self._client().head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == HTTPStatus.NOT_FOUND:
                return None
            with told(path):
                raise
        return int(head["ContentLength"])

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        with told(remote_file_path):
            self._stored._download_file(remote_file_path, local_path)

    def _upload(self, name: str, directory: str | None) -> Upload:
        bucket, key = self._at(posixpath.join(directory or "", posixpath.basename(name)))
        return Upload(self._client(), bucket, key)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Store what a stream brings, as it comes."""

        async def chunks() -> AsyncIterable[bytes]:
            while chunk := stream.read(PART):
                yield chunk

        asyncio.run(
            self.log_artifact_from_async_stream(chunks(), artifact_file_name, artifact_path)
        )

    async def log_artifact_from_async_stream(
        self,
        chunks: AsyncIterable[bytes],
        artifact_file_name: str,
        artifact_path: str | None = None,
    ) -> None:
        """Store what a client sends, as it comes; all of it or nothing."""
        upload = self._upload(artifact_file_name, artifact_path)
        waiting = bytearray()
        try:
            with told(artifact_file_name):
                async for chunk in chunks:
                    waiting += chunk
                    if len(waiting) > PART:
                        content, waiting = bytes(waiting), bytearray()
                        await asyncio.to_thread(upload.part, content)
                await asyncio.to_thread(upload.end, bytes(waiting))
        except MlflowException:
            # a client reads no answer before it has sent everything
            async for _ in chunks:
                pass
            raise
        finally:
            # where the store fails here too, it expires what was begun
            with suppress(BotoCoreError, ClientError):
                await asyncio.to_thread(upload.abort)
