"""Objects go between the cache and the platform's store as they are, hashed, and many at once."""

from __future__ import annotations

import base64
import hashlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from dvc_runner import transfer
from dvc_runner.git import RunnerError, TimeLimitError
from dvc_runner.limits import time_limit
from dvc_runner.settings import Settings
from dvc_runner.transfer import bring, store

from .conftest import World, committed_to, new_world

MANY = 150


class S3(BaseHTTPRequestHandler):
    """What S3 answers of one bucket, whose objects the server holds in the order they came."""

    protocol_version = "HTTP/1.1"
    server: Shop

    def answer(self, status: int, body: bytes = b"") -> None:
        if status >= 400:
            code = {404: "NoSuchKey", 400: "BadDigest"}.get(status, "AccessDenied")
            body = f"<Error><Code>{code}</Code><Message>said so</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def hiccup(self) -> bool:
        with self.server.turn:
            self.server.hiccups -= 1
            if self.server.hiccups < 0:
                return False
        if self.server.hangs_up:
            self.close_connection = True
        else:
            self.answer(503)
        return True

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.hiccup():
            return
        time.sleep(self.server.slow)
        said = base64.b64decode(self.headers["Content-MD5"])
        if self.server.refuses:
            self.answer(403)
        elif self.server.garbles or hashlib.md5(body).digest() != said:  # noqa: S324 - DVC's own
            self.answer(400)
        else:
            self.server.objects[unquote(self.path).removeprefix("/bucket/")] = body
            self.answer(200)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.server.users.add(self.headers["Authorization"].partition("Credential=")[2][:4])
        if "list-type" in url.query:
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            keys = [key for key in self.server.objects if key.startswith(prefix)]
            rows = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in keys)
            self.answer(200, f"<ListBucketResult>{rows}</ListBucketResult>".encode())
            return
        if self.hiccup():
            return
        content = self.server.objects.get(unquote(url.path).removeprefix("/bucket/"))
        self.server.paths.add(url.path)
        if content and self.server.in_chunks:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(content), content))
            return
        self.answer(404 if content is None else 200, content or b"")

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class Shop(ThreadingHTTPServer):
    """A store with one bucket."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), S3)
        self.objects: dict[str, bytes] = {}
        self.users: set[str] = set()
        self.paths: set[str] = set()
        self.refuses = self.garbles = self.in_chunks = self.hangs_up = False
        self.slow, self.hiccups, self.turn = 0.0, 0, threading.Lock()

    def handle_error(self, *_: object) -> None:
        """Keep quiet of those who leave before the end."""


@pytest.fixture
def shop() -> Iterator[Shop]:
    """A store with one bucket, on this machine."""
    with Shop() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def at(shop: Shop, tmp_path: Path) -> Settings:
    """A workspace whose remote is below a prefix of that bucket."""
    keys = tmp_path / "s3_credentials"
    keys.write_text("[default]\naws_access_key_id = ours\naws_secret_access_key = of-it\n")
    return Settings(
        workspace=tmp_path / "workspace",
        remote_url="s3://bucket/below",
        remote_endpoint=f"http://127.0.0.1:{shop.server_port}",
        remote_credentials=str(keys),
        tracking_uri="",
        dvc="dvc",
    )


def cached(at: Settings, content: bytes, suffix: str = "") -> str:
    """Put something into the cache, as DVC does; returns its key."""
    md5 = hashlib.md5(content).hexdigest()  # noqa: S324 - as above
    key = f"files/md5/{md5[:2]}/{md5[2:]}{suffix}"
    (at.cache / key).parent.mkdir(parents=True, exist_ok=True)
    (at.cache / key).write_bytes(content)
    return key


def test_what_is_stored_is_what_the_cache_has_and_a_directorys_list_comes_last(
    at: Settings, shop: Shop
) -> None:
    listing = cached(at, b"[]", ".dir")
    contents = [f"file {number}".encode() for number in range(MANY)]
    contents += [bytes(3 << 20), b""]
    keys = [cached(at, content) for content in contents]
    store(at, [listing, *keys])
    stored = {f"below/{key}": content for key, content in zip(keys, contents, strict=True)}
    assert shop.objects == {**stored, f"below/{listing}": b"[]"}
    assert list(shop.objects)[-1] == f"below/{listing}"


def test_no_list_is_stored_of_a_directory_of_which_a_file_is_missing(
    at: Settings, shop: Shop
) -> None:
    listing, lost, there = cached(at, b"[]", ".dir"), cached(at, b"lost"), cached(at, b"there")
    (at.cache / lost).unlink()
    store(at, [listing, lost, there])
    assert list(shop.objects) == [f"below/{there}"]


@pytest.mark.parametrize("size", [4, 2 << 20])
def test_a_file_that_is_not_what_dvc_hashed_is_refused_by_the_store_and_leaves_the_cache(
    size: int, at: Settings, shop: Shop
) -> None:
    key = cached(at, bytes(size))
    (at.cache / key).write_bytes(b"x" * size)
    with pytest.raises(RunnerError, match=f"{key} was not what DVC hashed .* run again"):
        store(at, [key])
    assert shop.objects == {}
    assert not (at.cache / key).exists()


def test_what_is_brought_is_what_its_key_says_and_dvc_need_not_hash_it_again(at: Settings) -> None:
    contents = [bytes(number) for number in (0, 1, 3 << 20)]
    keys = [cached(at, content) for content in contents]
    store(at, keys)
    absent = cached(at, b"stored nowhere")
    wanted = {key: at.workspace / "new" / key for key in [*keys, absent]}
    bring(at, wanted)
    assert [wanted[key].read_bytes() for key in keys] == contents
    assert {wanted[key].stat().st_mode & 0o777 for key in keys} == {0o444}
    assert not wanted[absent].exists()


@pytest.mark.parametrize("many", [1, MANY])
def test_an_object_with_other_bytes_is_named_and_is_not_in_the_cache(
    many: int, at: Settings, shop: Shop
) -> None:
    keys = [cached(at, f"file {number}".encode()) for number in range(many)]
    store(at, keys)
    shop.objects[f"below/{keys[0]}"] = b"spoiled"
    wanted = {key: at.workspace / "new" / key for key in keys}
    with pytest.raises(RunnerError, match=f"{keys[0]} in bucket bucket hashes to .*: remove it"):
        bring(at, wanted)
    assert not [*wanted[keys[0]].parent.glob(f"{wanted[keys[0]].name}*")]


@pytest.mark.parametrize("size", [4, 2 << 20])
def test_a_store_that_takes_nothing_is_named_with_the_way_on(
    size: int, at: Settings, shop: Shop
) -> None:
    shop.refuses = True
    with pytest.raises(RunnerError, match=r"Bucket bucket at .* refuses \(AccessDenied: said so\)"):
        store(at, [cached(at, bytes(size))])


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))


@pytest.mark.parametrize("hangs_up", [True, False])
def test_an_object_is_asked_for_again_where_the_store_has_a_hiccup(
    hangs_up: bool, at: Settings, shop: Shop
) -> None:
    shop.hangs_up = hangs_up
    key = cached(at, bytes(2 << 20))
    shop.hiccups = 2
    store(at, [key])
    shop.hiccups = 2
    bring(at, {key: at.workspace / "new"})
    assert (at.workspace / "new").stat().st_size == 2 << 20
    shop.hiccups = 3
    with pytest.raises(RunnerError, match=r"refuses|does not answer"):
        bring(at, {key: at.workspace / "newer"})


def test_a_file_that_is_as_dvc_hashed_it_stays_whatever_the_store_says_of_it(
    at: Settings, shop: Shop
) -> None:
    shop.garbles = True
    key = cached(at, b"whole")
    with pytest.raises(RunnerError, match=r"refuses \(BadDigest"):
        store(at, [key])
    assert (at.cache / key).read_bytes() == b"whole"


@pytest.mark.parametrize("size", [5, (3 << 20) + 1])
def test_an_answer_of_unknown_length_is_read_to_its_end(
    size: int, at: Settings, shop: Shop
) -> None:
    shop.in_chunks = True
    key = cached(at, b"x" * size)
    store(at, [key])
    bring(at, {key: at.workspace / "new"})
    assert (at.workspace / "new").read_bytes() == b"x" * size


def test_a_disk_that_is_full_leaves_no_half_of_an_object(at: Settings) -> None:
    keys = [cached(at, b"x" * 10_000), cached(at, b"y" * (3 << 20))]
    store(at, keys)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        for key in keys:
            with pytest.raises(OSError, match="File too large"):
                bring(at, {key: at.workspace / "new" / "object"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not [*(at.workspace / "new").iterdir()]


def test_a_prefix_of_odd_characters_goes_as_it_is_signed(at: Settings, shop: Shop) -> None:
    at = replace(at, remote_url="s3://bucket/team=a/b+c d")
    key = cached(at, b"x")
    store(at, [key])
    bring(at, {key: at.workspace / "new"})
    assert shop.paths == {f"/bucket/team%3Da/b%2Bc%20d/{key}"}


@pytest.mark.parametrize(
    ("proxies", "direct"),
    [
        ({}, True),
        ({"no_proxy": "localhost"}, True),
        ({"https_proxy": "http://proxy:1"}, True),
        ({"http_proxy": "http://proxy:1"}, False),
        ({"http_proxy": "http://proxy:1", "no_proxy": "127.0.0.1"}, True),
    ],
)
def test_a_store_that_a_proxy_stands_before_is_dvcs(
    proxies: dict[str, str], direct: bool, at: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http", "https", "all", "no"):
        for word in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(word, raising=False)
    for name, value in proxies.items():
        monkeypatch.setenv(name, value)
    assert transfer.is_direct(at) is direct


def test_a_store_that_is_down_is_named_with_the_way_on(at: Settings) -> None:
    key = cached(at, b"x")
    with pytest.raises(RunnerError, match=r"does not answer .*: start it, or correct"):
        store(replace(at, remote_endpoint="http://127.0.0.1:9"), [key])


def test_what_a_project_says_to_aws_is_not_said_to_the_platforms_store(
    at: Settings, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL_S3", "AWS_REGION"):
        monkeypatch.setenv(name, "theirs")
    key = cached(at, b"x")
    store(at, [key])
    bring(at, {key: at.workspace / "new" / key})
    assert shop.users == {"ours"}
    assert os.environ["AWS_PROFILE"] == "theirs"


def test_a_limit_of_time_ends_a_transfer(at: Settings, shop: Shop) -> None:
    shop.slow = 0.3
    keys = [cached(at, f"file {number}".encode()) for number in range(MANY)]
    began = time.monotonic()
    with pytest.raises(TimeLimitError), time_limit(1):
        store(at, keys)
    assert time.monotonic() - began < 3
    assert len(shop.objects) < MANY


PROJECT = """\
stages:
  make:
    cmd: mkdir -p many; for n in 1 2 3; do echo $n > many/$n; done; cat given.txt > one
    deps: [given.txt]
    outs: [many, {one: {push: false}}]
"""


@pytest.mark.processes
def test_a_run_stores_what_dvc_says_in_s3_and_another_workspace_is_given_its_data_from_there(
    shop: Shop, at: Settings, tmp_path: Path
) -> None:
    world: World = new_world(tmp_path)
    md5 = hashlib.md5(b"data\n").hexdigest()  # noqa: S324 - as above
    given = f"outs:\n- md5: {md5}\n  size: 5\n  hash: md5\n  path: given.txt\n"
    committed_to(world, dvc__yaml=PROJECT, given__txt__dvc=given, __gitignore="/given.txt\n")
    shop.objects[f"below/files/md5/{md5[:2]}/{md5[2:]}"] = b"data\n"
    remote = {
        "RUNNER_REMOTE_URL": at.remote_url,
        "RUNNER_REMOTE_ENDPOINT": at.remote_endpoint,
        "RUNNER_REMOTE_CREDENTIALS": at.remote_credentials,
        "AWS_PROFILE": "theirs",
    }
    done = world.call("local", str(world.project), **remote)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 files pushed" in done.stdout
    assert len(shop.objects) == 5
    assert list(shop.objects)[-1].endswith(".dir")
    assert (world.work / "project/one").read_text() == "data\n"
    again = world.call("local", str(world.project), **remote)
    assert again.stdout.startswith("Nothing to do")
