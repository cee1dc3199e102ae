"""Objects copied between DVC's cache and the platform's S3 remote, many at once.

Both have one layout. DVC's own transfer takes several times as long as the network does, and
believes what it is given: here the store is told what each object hashes to, so that it refuses
other bytes, and what comes from it is hashed before the cache has it.
"""

from __future__ import annotations

import base64
import hashlib
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from pathlib import Path
from ssl import VERIFY_X509_STRICT, create_default_context
from typing import BinaryIO
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

from dvc_runner.git import RunnerError
from dvc_runner.objects import LIST, MD5, MODE, name_of
from dvc_runner.outputs import push_objects
from dvc_runner.remote import (
    BY_NAME,
    NOT_FOUND,
    REGION,
    as_remote,
    missing_in_remote,
    place_of,
    refused,
    session_of,
    silent,
)
from dvc_runner.settings import Settings

AT_ONCE = 8
CHUNK = 1 << 20
BUFFERS = 4
OK, BUSY, FAULT = 200, 429, 500
# seconds before an object is asked for once more
PAUSES = (0.5, 2.0)
LARGEST = 5 << 30  # bytes, of what S3 takes in one request
SECONDS = 60.0  # without a sign of the store
SAID = re.compile(r"<(Code|Message)>([^<]*)</")


def is_direct(at: Settings) -> bool:
    """Tell whether the remote is an S3 store at an address that is given, and no proxy before it.

    AWS leads to a bucket's own region, which DVC follows.
    """
    address = urlsplit(at.remote_endpoint)
    proxied = {address.scheme, "all"} & getproxies().keys() and not proxy_bypass(address.netloc)
    return at.remote_url.startswith("s3://") and bool(address.netloc) and not proxied


def store(at: Settings, keys: Iterable[str]) -> None:
    """Store what the cache has of `keys` in the remote, by DVC what can not go directly.

    The list of a directory says that every file in it is there: lists come last, and none does
    where a file is missing.

    Raises:
        RunnerError: the remote does not take something, or that is not what DVC hashed.
    """
    wanted = {key: at.cache / key for key in keys}
    here = {key: path for key, path in wanted.items() if path.is_file()}
    files = {key: path for key, path in here.items() if not key.endswith(LIST)}
    lists = {key: path for key, path in here.items() if key not in files}
    remote = Remote(at) if here and is_direct(at) else None
    for objects in (files, lists if here.keys() == wanted.keys() else {}):
        direct = {key: path for key, path in objects.items() if remote and goes(key, path)}
        if rest := objects.keys() - direct.keys():
            with as_remote(at):
                push_objects(at.project, rest)
        if remote and direct:
            remote.each(remote.put, direct.items())


def goes(key: str, path: Path) -> bool:
    """Tell whether an object can go as it is: an older DVC did not hash a text so."""
    return key.startswith(MD5) and path.stat().st_size <= LARGEST


def bring(at: Settings, objects: Mapping[str, Path]) -> None:
    """Bring those objects that the remote has to their files in the cache.

    Raises:
        RunnerError: it refuses or does not answer, or one is not what its key says.
    """
    if not objects:
        return
    absent = {*(missing_in_remote(at, objects) if len(objects) > BY_NAME else ())}
    there = {key: path for key, path in objects.items() if key not in absent}
    for folder in {path.parent for path in there.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    remote = Remote(at)
    remote.each(remote.get, there.items())


def md5_of(key: str) -> str:
    """Return the md5 that a key spells."""
    return name_of(key).removesuffix(LIST)


def md5_in(path: Path) -> str:
    """Return the md5 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def said_in(answer: HTTPResponse) -> dict[str, str]:
    """Read an answer to its end, and return what the store says in it against a request."""
    said = answer.read().decode(errors="replace")
    return {"Code": str(answer.status), **dict(SAID.findall(said))}


@contextmanager
def whole_or_gone(part: Path) -> Iterator[None]:
    """Remove a file where it is not finished: it may be what fills the disk."""
    try:
        yield
    except BaseException:
        part.unlink(missing_ok=True)
        raise


class PassingError(RunnerError):
    """What may be over at the next attempt."""


class Remote:
    """An S3 store, asked by plain HTTP: its own client takes longer than a small object does."""

    def __init__(self, at: Settings) -> None:
        """Make ready to ask."""
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - as in remote.py
        from botocore.config import Config  # noqa: PLC0415
        from botocore.httpsession import get_cert_path  # noqa: PLC0415

        self.at, (self.bucket, prefix) = at, place_of(at)
        address = urlsplit(at.remote_endpoint)
        # what is signed is the host in small letters, and the path as it is on the way
        endpoint = address._replace(netloc=address.netloc.lower()).geturl().rstrip("/")
        self.base = "/".join([endpoint, self.bucket, quote(prefix, safe="/~")]).rstrip("/")
        with as_remote(at):
            session = session_of(at)
            self.auth = S3SigV4Auth(session.get_credentials(), "s3", REGION)
            trusted = get_cert_path(session.get_config_variable("ca_bundle") or True)
        # the md5 of what is sent is signed, and says as much as its SHA-256 would
        self.config = Config(s3={"payload_signing_enabled": False})
        self.kind: Callable[..., HTTPConnection] = HTTPConnection
        if self.base.startswith("https:"):
            context = create_default_context(cafile=trusted)
            # as the client that all else is asked by: a private CA may be older than that rule
            context.verify_flags &= ~VERIFY_X509_STRICT
            self.kind = partial(HTTPSConnection, context=context)
        self.own, self.connections = threading.local(), list[HTTPConnection]()
        self.stopped = threading.Event()

    def each(self, action: Callable[[str, Path], None], items: Iterable[tuple[str, Path]]) -> None:
        """Carry out an action for each item, many at once; the first failure ends them all."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for _ in pool.map(lambda item: self.persist(action, *item), items):
                    pass
            except BaseException:
                self.stopped.set()
                raise
            finally:
                for connection in self.connections:
                    connection.close()

    def persist(self, action: Callable[[str, Path], None], key: str, path: Path) -> None:
        """Carry out an action, once more after each pause while the store may yet do it."""
        for pause in PAUSES:
            try:
                return action(key, path)
            except PassingError:
                self.hang_up()
                if self.stopped.wait(pause):
                    raise
        return action(key, path)

    def hang_up(self) -> None:
        """Leave this thread's connection, on which an answer may still be under way."""
        if hasattr(self.own, "connection"):
            self.own.connection.close()
            del self.own.connection

    def put(self, key: str, path: Path) -> None:
        """Store a file of the cache under its key."""
        size, md5 = path.stat().st_size, base64.b64encode(bytes.fromhex(md5_of(key)))
        headers = {"Content-MD5": md5.decode(), "Content-Length": str(size)}
        with path.open("rb") as file, self.spoken_to():
            body = self.parts(file) if size > CHUNK else file.read()
            answer = self.ask("PUT", key, headers, body)
            error = said_in(answer)
        if answer.status == OK:
            return
        if error["Code"] == "BadDigest" and md5_in(path) != md5_of(key):
            path.unlink()
            raise RunnerError(
                f"{path} was not what DVC hashed any more, and is removed: run again, and its "
                "stage makes it anew."
            )
        raise self.refusal(answer.status, error)

    def refusal(self, status: int, said: Mapping[str, str]) -> RunnerError:
        """Say that the store does not do what it is asked; a fault of its own may pass."""
        error = refused(self.at, self.bucket, status, said)
        passing = status >= FAULT or status == BUSY or said["Code"] == "BadDigest"
        return PassingError(str(error)) if passing else error

    def parts(self, file: BinaryIO) -> Iterator[bytes]:
        """Read a file in parts, each of which has its time on the way."""
        while part := file.read(CHUNK):
            self.go_on()
            yield part

    def get(self, key: str, path: Path) -> None:
        """Bring an object to its file in the cache, if the store has it."""
        part = path.with_name(f"{path.name}.part")
        with self.spoken_to():
            answer = self.ask("GET", key, {})
        with answer:
            if answer.status != OK:
                with self.spoken_to():
                    error = said_in(answer)
                if answer.status == NOT_FOUND:
                    return
                raise self.refusal(answer.status, error)
            with whole_or_gone(part):
                md5 = self.save(answer, part)
                if md5 != md5_of(key):
                    raise RunnerError(
                        f"{key} in bucket {self.bucket} hashes to {md5}, so it is not what was "
                        "stored: remove it there, and run again."
                    )
                part.chmod(MODE)
                part.rename(path)

    def save(self, answer: HTTPResponse, path: Path) -> str:
        """Write what comes to a file; returns its md5, which is made beside that."""
        md5, left = hashlib.md5(usedforsecurity=False), answer.length
        size = CHUNK if left is None else min(CHUNK, left)  # unknown where it comes in chunks
        buffers = [bytearray(size) for _ in range(BUFFERS if size == CHUNK else 1)]
        hashed: list[Future[None]] = []
        with path.open("wb") as output, ThreadPoolExecutor(1) as side:
            while left != 0:
                self.go_on()
                if len(hashed) >= BUFFERS:
                    hashed[-BUFFERS].result()
                buffer = buffers[len(hashed) % len(buffers)]
                with self.spoken_to():
                    size = answer.readinto(buffer)
                    if not size and left:
                        raise IncompleteRead(b"", left)
                if not size:
                    break
                content, left = memoryview(buffer)[:size], left and left - size
                if len(buffers) == 1:
                    md5.update(content)
                else:
                    hashed.append(side.submit(md5.update, content))
                output.write(content)
        return md5.hexdigest()

    def go_on(self) -> None:
        """Raise RunnerError where another object failed."""
        if self.stopped.is_set():
            raise RunnerError("The transfer was broken off.")

    @contextmanager
    def spoken_to(self) -> Iterator[None]:
        """Say of whatever goes wrong on the way that the store does not answer."""
        try:
            yield
        except (OSError, HTTPException) as error:
            raise PassingError(str(silent(self.at, self.bucket, error))) from error

    def ask(
        self, method: str, key: str, headers: Mapping[str, str], body: bytes | Iterator[bytes] = b""
    ) -> HTTPResponse:
        """Ask for an object, by this thread's connection."""
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - as above

        url = urlsplit(f"{self.base}/{key}")
        signed = AWSRequest(method=method, url=url.geturl(), headers=headers)
        signed.context["client_config"] = self.config
        self.auth.add_auth(signed)
        if not hasattr(self.own, "connection"):
            self.own.connection = self.kind(url.netloc, timeout=SECONDS)
            self.connections.append(self.own.connection)
        connection: HTTPConnection = self.own.connection
        with suppress(BrokenPipeError, ConnectionResetError):  # it may have said why
            connection.request(method, url.path, body, dict(signed.headers.items()))
        return connection.getresponse()
