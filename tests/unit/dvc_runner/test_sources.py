"""A project's repository comes to this machine from servers like those that people have."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.sshd import SshServer

from dvc_runner.git import RunnerError
from dvc_runner.snapshot import make_snapshot
from dvc_runner.sources import Source, bring, is_address

from .conftest import git, repository

pytestmark = pytest.mark.processes

TOKEN = "s3cret/t%ken"  # noqa: S105 - of a server in this file
LFS = shutil.which("git-lfs")


class Git(BaseHTTPRequestHandler):
    """Serves repositories over HTTP to whoever knows a user and a password."""

    root = Path()
    login = ""
    asked: list[str] = []  # noqa: RUF012 - the server makes the instances

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.asked.append(self.headers.get("Authorization", ""))
        expected = base64.b64encode(self.login.encode()).decode()
        if self.login and self.asked[-1] != f"Basic {expected}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="git"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        given = {
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
        }
        length = int(self.headers.get("Content-Length") or 0)
        said = subprocess.run(
            ["git", "-c", "safe.directory=*", "http-backend"],
            input=self.rfile.read(length),
            env={**os.environ, **given},
            capture_output=True,
            check=True,
        ).stdout
        head, _, body = said.partition(b"\r\n\r\n")
        rows = [row.split(": ", 1) for row in head.decode().split("\r\n")]
        named = dict(rows)
        self.send_response(int(named.pop("Status", "200").split()[0]))
        for name, value in named.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where sources are kept."""
    return tmp_path / "cache"


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """A project that others have: two branches and a tag."""
    made = repository(tmp_path / "served/churn", train__py="one\n")
    git(made, "branch", "--move", "main")
    git(made, "tag", "-a", "v1", "-m", "the first")
    git(made, "checkout", "--quiet", "-b", "next")
    changed(made, "train.py", "two\n")
    git(made, "checkout", "--quiet", "main")
    changed(made, "train.py", "three\n")
    return made


@pytest.fixture
def web(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A server of what is below served/: its address, and a handler to set up."""
    with serving(tmp_path / "served") as found:
        yield found


@contextmanager
def serving(root: Path, login: str = "") -> Iterator[SimpleNamespace]:
    """Serve the repositories below a directory."""
    handler = type("Own", (Git,), {"root": root, "login": login, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield SimpleNamespace(url=f"http://127.0.0.1:{server.server_port}", handler=handler)
        server.shutdown()
        thread.join()


def changed(at: Path, name: str, content: str) -> str:
    """Commit another content of a file; returns the commit."""
    (at / name).write_text(content)
    git(at, "add", "--all")
    git(at, "commit", "--quiet", "-m", f"{name} changed")
    return git(at, "rev-parse", "HEAD")


def train(source: Source, cache: Path) -> str:
    """What the project's program is in the folder that comes."""
    return (bring(source, cache) / "train.py").read_text()


# --- which commit


def test_the_default_branch_comes_and_is_brought_up_to_date(upstream: Path, cache: Path) -> None:
    source = Source(upstream.as_uri())
    folder = bring(source, cache)
    assert (folder / "train.py").read_text() == "three\n"
    (folder / "left-by-somebody.txt").write_text("1\n")
    later = changed(upstream, "train.py", "four\n")
    assert bring(source, cache) == folder
    assert (folder / "train.py").read_text() == "four\n"
    assert not (folder / "left-by-somebody.txt").exists()
    found = make_snapshot(folder, cache)
    assert (found["source_commit"], found["dirty"]) == (later, False)


def test_a_branch_a_tag_and_a_commit_come_by_their_names(
    upstream: Path, cache: Path, web: SimpleNamespace
) -> None:
    first = git(upstream, "rev-parse", "v1^{commit}")
    wanted = {"next": "two\n", "v1": "one\n", first: "one\n", first[:8]: "one\n"}
    wanted["refs/heads/next"] = "two\n"
    for url in (str(upstream), upstream.as_uri(), f"{web.url}/churn/.git"):
        assert {ref: train(Source(url, ref), cache) for ref in wanted} == wanted


def test_a_branch_whose_history_was_written_anew_comes(upstream: Path, cache: Path) -> None:
    source = Source(upstream.as_uri(), "next")
    assert train(source, cache) == "two\n"
    git(upstream, "branch", "--force", "next", "v1")
    assert train(source, cache) == "one\n"


@pytest.mark.parametrize("ref", ["nxt", "0123456", "0" * 40])
def test_what_does_not_exist_is_named_with_what_does(ref: str, upstream: Path, cache: Path) -> None:
    source = Source(upstream.as_uri(), ref)
    said = rf"has no branch, tag or commit '{ref}' \(its branches are main, next\): correct"
    with pytest.raises(RunnerError, match=said):
        bring(source, cache)


def test_a_repository_without_a_commit_and_none_at_all_are_told_apart(
    tmp_path: Path, cache: Path
) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "young.git")
    with pytest.raises(RunnerError, match=r"young.git has no commit yet"):
        bring(Source(str(tmp_path / "young.git")), cache)
    with pytest.raises(RunnerError, match=r"There is no repository at .*/gone.git"):
        bring(Source(str(tmp_path / "gone.git")), cache)


def test_one_that_was_killed_while_it_fetched_is_no_obstacle(upstream: Path, cache: Path) -> None:
    source = Source(upstream.as_uri())
    folder = bring(source, cache)
    for name in ("index.lock", "shallow.lock", "HEAD.lock"):
        (folder / ".git" / name).write_text("")
    changed(upstream, "train.py", "four\n")
    assert train(source, cache) == "four\n"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("https://host/x.git", True),
        ("ssh://git@host:2222/x", True),
        ("git@host:team/x.git", True),
        ("deploy@host:x", True),
        ("/srv/churn", False),
        ("../churn", False),
        ("churn", False),
        ("~/churn", False),
    ],
)
def test_an_address_is_told_from_a_directory(text: str, address: bool) -> None:
    assert is_address(text) is address


# --- tokens


def everything_kept(cache: Path) -> bytes:
    """All that is in the files of the cache, and their names."""
    files = [path for path in cache.rglob("*") if path.is_file()]
    return b"".join(path.read_bytes() + str(path).encode() for path in files)


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that takes down each git that is started: its words, and its environment."""
    taken, wrapper = tmp_path / "seen", tmp_path / "bin/git"
    wrapper.parent.mkdir()
    real = shutil.which("git")
    wrapper.write_text(f'#!/bin/sh\n(echo "$@"; env) >> {taken}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    return taken


@pytest.mark.parametrize("spelt", ["bot@", "bot:s3cret%2Ft%25ken@"], ids=["given", "url"])
def test_a_token_opens_a_private_repository_and_is_written_nowhere(
    spelt: str, upstream: Path, cache: Path, web: SimpleNamespace, seen: Path
) -> None:
    assert upstream
    web.handler.login = f"bot:{TOKEN}"
    address = f"{web.url}/churn/.git"
    source = Source(address.replace("//", f"//{spelt}"), token=TOKEN if ":" not in spelt else "")
    assert train(source, cache) == "three\n"
    assert b"ls-remote" in seen.read_bytes()
    for text in (everything_kept(cache), seen.read_bytes(), repr(source).encode()):
        assert b"s3cret" not in text


def test_a_wrong_token_and_none_are_refused_at_once_without_it(
    upstream: Path, cache: Path, web: SimpleNamespace
) -> None:
    assert upstream
    web.handler.login = f"git:{TOKEN}"
    source = Source(f"{web.url}/churn/.git", token="wr0ng")  # noqa: S106 - that is the test
    began = time.monotonic()
    with pytest.raises(RunnerError) as refusal:
        bring(source, cache)
    assert f"{web.url}/churn/.git refuses the project's token: set" in str(refusal.value)
    assert "wr0ng" not in str(refusal.value)
    with pytest.raises(RunnerError, match="refuses a visitor without a token"):
        bring(replace(source, token=""), cache)
    assert time.monotonic() - began < 5


def test_a_password_that_this_machine_keeps_is_not_tried_before_the_token(
    upstream: Path,
    cache: Path,
    web: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert upstream
    web.handler.login = f"git:{TOKEN}"
    kept = tmp_path / "gitconfig"
    kept.write_text('[credential]\n\thelper = "!printf username=me\\\\npassword=old; true"\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(kept))
    assert train(Source(f"{web.url}/churn/.git", token=TOKEN), cache) == "three\n"


def test_a_server_that_is_not_there_or_never_speaks_is_given_up(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr("dvc_runner.sources.ASK_SECONDS", 1.0)
        began = time.monotonic()
        with pytest.raises(RunnerError, match=r"does not answer .*took longer than 1 seconds"):
            bring(Source(f"http://127.0.0.1:{port}/x"), cache)
        assert time.monotonic() - began < 5
    with pytest.raises(RunnerError, match=f"http://127.0.0.1:{port}/x does not answer"):
        bring(Source(f"http://127.0.0.1:{port}/x"), cache)


# --- submodules


def with_submodule(upstream: Path, url: str) -> None:
    """Give the project a submodule, which has one itself, at an address."""
    deep = repository(upstream.parent / "deep", deep__txt="deep\n")
    shared = repository(upstream.parent / "shared", lib__py="lib 1\n")
    for at, name, of in ((shared, "deep", deep), (upstream, "libs/shared", shared)):
        git(at, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(of), name)
        git(at, "config", "--file", ".gitmodules", f"submodule.{name}.url", url.format(of.name))
        git(at, "add", "--all")
        git(at, "commit", "--quiet", "-m", "a submodule")


@pytest.mark.parametrize("kind", ["full", "relative"])
def test_private_submodules_come_with_the_same_token(
    kind: str, upstream: Path, cache: Path, web: SimpleNamespace
) -> None:
    web.handler.login = f"git:{TOKEN}"
    # their addresses name no user, as in most .gitmodules
    with_submodule(upstream, f"{web.url}/{{}}/.git" if kind == "full" else "../../{}/.git")
    source = Source(f"{web.url}/churn/.git", token=TOKEN)
    folder = bring(source, cache)
    assert (folder / "libs/shared/lib.py").read_text() == "lib 1\n"
    assert (folder / "libs/shared/deep/deep.txt").read_text() == "deep\n"
    # a commit that is no branch's tip any more
    changed(upstream.parent / "shared", "lib.py", "lib 2\n")
    shutil.rmtree(folder)
    assert (bring(source, cache) / "libs/shared/lib.py").read_text() == "lib 1\n"
    git(upstream, "rm", "--quiet", "--force", "libs/shared")
    git(upstream, "commit", "--quiet", "-m", "without")
    assert not (bring(source, cache) / "libs").exists()


def test_a_submodule_on_another_server_never_gets_the_token(
    upstream: Path, cache: Path, web: SimpleNamespace
) -> None:
    web.handler.login = f"git:{TOKEN}"
    with serving(web.handler.root, "a:b") as strange:
        with_submodule(upstream, f"{strange.url}/{{}}/.git")
        with pytest.raises(RunnerError, match=f"submodule {strange.url}/shared/.git refuses"):
            bring(Source(f"{web.url}/churn/.git", token=TOKEN), cache)
    assert set(strange.handler.asked) == {""}


def test_a_repository_brings_in_no_file_of_this_machine(
    upstream: Path, cache: Path, web: SimpleNamespace
) -> None:
    with_submodule(upstream, f"{upstream.parent.as_uri()}/{{}}")
    with pytest.raises(RunnerError, match="transport 'file' not allowed"):
        bring(Source(f"{web.url}/churn/.git"), cache)
    # one that is a path itself may
    assert (bring(Source(str(upstream)), cache) / "libs/shared/deep/deep.txt").is_file()


def test_a_submodules_commit_that_nobody_pushed_is_said_to_be_that(
    upstream: Path, cache: Path
) -> None:
    with_submodule(upstream, "../{}")
    changed(upstream / "libs/shared", "lib.py", "here alone\n")
    changed(upstream, "train.py", "with it\n")
    with pytest.raises(RunnerError, match="own server has not: push the submodule too"):
        bring(Source(upstream.as_uri()), cache)


# --- SSH


@pytest.fixture
def ssh(sshd: SshServer, upstream: Path) -> SimpleNamespace:
    """An SSH server of this user, and the project there."""
    url = f"ssh://{sshd.user}@127.0.0.1:{sshd.port}{upstream}"
    return SimpleNamespace(
        source=Source(url, ssh_key=sshd.key, host_key=sshd.host_key),
        place=sshd.place,
        port=sshd.port,
    )


def test_a_deploy_key_opens_a_private_repository_on_the_host_that_is_pinned(
    ssh: SimpleNamespace, cache: Path
) -> None:
    key = ssh.source.ssh_key
    # as an editor or a vault hands them on: without the last line's end, or with Windows' ones
    for spelt in (key, key.strip(), key.replace("\n", "\r\n")):
        assert train(replace(ssh.source, ssh_key=spelt), cache) == "three\n"
        shutil.rmtree(cache)
    scanned = f"[127.0.0.1]:{ssh.port} {ssh.source.host_key}"
    assert train(replace(ssh.source, host_key=scanned), cache) == "three\n"
    assert key.splitlines()[2].encode() not in everything_kept(cache)


def test_a_wrong_host_key_a_wrong_key_and_text_that_is_none_are_told_apart(
    ssh: SimpleNamespace, cache: Path
) -> None:
    other = (ssh.place / "other.pub").read_text()
    began = time.monotonic()
    said = (
        rf"The host key of \[127.0.0.1\]:{ssh.port}, .* is not the one named in host_key: compare"
    )
    with pytest.raises(RunnerError, match=said):
        bring(replace(ssh.source, host_key=other), cache)
    with pytest.raises(RunnerError, match="refuses the project's ssh_key: add the public half"):
        bring(replace(ssh.source, ssh_key=(ssh.place / "other").read_text()), cache)
    with pytest.raises(RunnerError, match="is no private key without a passphrase"):
        bring(replace(ssh.source, ssh_key="ssh-ed25519 AAAA of the wrong file"), cache)
    assert time.monotonic() - began < 10


# --- Git LFS


@pytest.fixture
def large(upstream: Path) -> Path:
    """The project with a file that Git LFS keeps."""
    if not LFS:
        pytest.skip("there is no git-lfs: apt-get install git-lfs")
    git(upstream, "lfs", "install", "--local")
    git(upstream, "lfs", "track", "*.bin")
    changed(upstream, "weights.bin", "many weights\n")
    return upstream


def test_what_git_lfs_keeps_comes_as_its_content(large: Path, cache: Path) -> None:
    folder = bring(Source(large.as_uri()), cache)
    assert (folder / "weights.bin").read_text() == "many weights\n"
    found = make_snapshot(folder, cache)
    assert found["dirty"] is False
    shown = git(Path(found["repository"]), "show", f"{found['id']}:weights.bin")
    assert shown == "many weights"
