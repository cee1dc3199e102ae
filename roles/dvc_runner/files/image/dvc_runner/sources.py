"""A project's git repository, brought to the machine that makes snapshots.

Only the standard library is needed, as for snapshots. Tokens and keys stay on this machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shlex
import shutil
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc_runner.git import RunnerError, forget_dead_git_locks, git, try_git, without_passwords

# a server that accepts and never speaks is given up by git itself, or else by the clock
ASK_SECONDS = 60.0
FETCH_SECONDS = 3600.0
SSH = (
    *("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=15"),
    *("-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=2", "-o", "LogLevel=ERROR"),
)
SCP_LIKE = re.compile(r"(?P<host>(?:[\w.-]+@)?\[?[\w.:-]+\]?):(?!//)(?P<path>.+)")
COMMIT = re.compile(r"[0-9a-f]{7,64}")
WHOLE_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
NAMES_SHOWN = 8
# what git and ssh say, in English, and what it means for the one who named the source
REFUSED = r"Authentication failed|could not read (Username|Password)|error: 40[13]\b"
WRONG_HOST_KEY = (
    r"Host key verification failed|host key .* (not|changed)|IDENTIFICATION HAS CHANGED"
)
WRONG_KEY = r"Permission denied|Too many authentication failures"
NO_KEY = r"error in libcrypto|invalid format|not a (private )?key file"
NOT_PUSHED = r"did not contain|not our ref"
NOT_THERE = r"[Nn]ot found|does not exist|does not appear to be a git repo|error: 404\b"
SILENT = (
    r"Could not resolve|Failed to connect|Couldn't connect|Connection (refused|timed out|reset|clo)"
    r"|Operation (timed out|too slow)|No route to host|unreachable|took longer than"
)


@dataclass(frozen=True)
class Source:
    """Where a project is kept, and what its server asks for."""

    url: str = field(repr=False)
    """HTTPS, SSH or a path; a user or a password in it is taken out for `address`."""
    ref: str = ""
    """A branch, a tag or a commit; empty is the server's default branch."""
    token: str = field(default="", repr=False)
    """The password for HTTPS; the user is that of the URL, or `git`."""
    ssh_key: str = field(default="", repr=False)
    """The private half of a deploy key, as text; empty leaves it to this machine's own SSH."""
    host_key: str = ""
    """The server's public keys, as `ssh-keyscan` prints them; empty asks this machine's own."""

    @property
    def address(self) -> str:
        """The URL without a secret; SSH keeps its user."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https"):
            return self.url
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def login(self) -> tuple[str, str]:
        """User and password for HTTPS."""
        parts = urllib.parse.urlsplit(self.url)
        if parts.scheme not in ("http", "https"):
            return "", ""
        user, password = (
            urllib.parse.unquote(said or "") for said in (parts.username, parts.password)
        )
        return user or "git", self.token or password

    @property
    def host(self) -> str:
        """The server, as SSH's list of known hosts names it; empty for a path."""
        if "://" in self.url:
            parts = urllib.parse.urlsplit(self.url)
            name, port = parts.hostname or "", parts.port
            return f"[{name}]:{port}" if port and port != 22 else name  # noqa: PLR2004 - SSH's own
        found = SCP_LIKE.fullmatch(self.url)
        return found["host"].rpartition("@")[2] if found else ""

    @property
    def is_local(self) -> bool:
        """It is a path on this machine, and so may its submodules be."""
        return self.url.startswith("file://") or not self.host


def is_address(text: str) -> bool:
    """Tell a git URL, also one like `git@host:path`, from the name of a directory."""
    return "://" in text or (bool(SCP_LIKE.fullmatch(text)) and not Path(text).exists())


def source_of(given: Mapping[str, Any]) -> Source:
    """Return the source of a project's entry; a directory is named from the root."""
    project = str(given["source"])
    address = project if is_address(project) else str(Path(project).expanduser().absolute())
    names = ("ref", "token", "ssh_key", "host_key")
    return Source(address, **{name: str(given.get(name) or "") for name in names})


def folder_of(given: Mapping[str, Any], cache: Path) -> Path:
    """Return the directory of a project, which is brought below `cache` where git has it elsewhere.

    Raises:
        RunnerError: it can not be brought, or has not the subdirectory that is named.
    """
    if not is_address(str(given["source"])) and not given.get("ref"):
        return within(Path(str(given["source"])).expanduser(), given)
    return within(bring(source_of(given), cache), given)


def within(whole: Path, given: Mapping[str, Any]) -> Path:
    """Return the project's directory of a source.

    Raises:
        RunnerError: it is not there, or not in the source.
    """
    name = str(given.get("subdirectory") or "")
    if not name:
        return whole
    folder = whole / name
    if not folder.is_dir() or not folder.resolve().is_relative_to(whole.resolve()):
        raise RunnerError(
            f"{source_of(given).address} has no directory {name}: correct the project's "
            "subdirectory."
        )
    return folder


def kept_folder_of(given: Mapping[str, Any], cache: Path) -> Path | None:
    """Return where a project that git has elsewhere was brought before, or None."""
    place = place_of(source_of(given), cache)
    return within(place, given) if (place / ".git/index").exists() else None


def place_of(source: Source, cache: Path) -> Path:
    """Return where a source is brought."""
    known = f"{source.address}\n{source.ref}"
    name = hashlib.sha256(known.encode()).hexdigest()[:16]
    return cache.expanduser().resolve() / "sources" / name


def bring(source: Source, cache: Path) -> Path:
    """Bring a source below `cache`, with its submodules and what Git LFS keeps of it.

    What is there already is not fetched again. No secret is written to what stays, and nothing ever
    asks at a terminal.

    Returns:
        The work tree, which is as a fresh clone is, with the commit checked out.

    Raises:
        RunnerError: the server refuses, is not the one it should be or does not answer, or has not
            what is named.
    """
    place = place_of(source, cache)
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock, access(source) as env:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / ".git" / "HEAD").exists():
            git("init", "--quiet", str(place))
        for inner in (place / ".git", *(place / ".git" / "modules").rglob("HEAD")):
            forget_dead_git_locks(inner if inner.is_dir() else inner.parent)
        git("config", "remote.origin.url", source.address, at=place)
        commit = fetched(source, place, env)
        check_out(source, place, commit, env)
    return place


def fetched(source: Source, place: Path, env: Mapping[str, str]) -> str:
    """Fetch the commit that is named, unless it is there; returns its id."""
    if WHOLE_COMMIT.fullmatch(source.ref) and is_there(place, source.ref):
        return source.ref
    asked = ("ls-remote", "origin", "HEAD", "refs/heads/*", "refs/tags/*")
    said = ask(source, place, env, *asked, timeout=ASK_SECONDS).splitlines()
    refs = {name: commit for commit, _, name in (row.partition("\t") for row in said)}
    if not refs:
        raise RunnerError(f"{source.address} has no commit yet: push the project there.")
    names = [f"refs/heads/{source.ref}", f"refs/tags/{source.ref}", source.ref or "HEAD"]
    if name := next((name for name in names if name in refs), ""):
        tip = refs.get(f"{name}^{{}}", refs[name])
        if not is_there(place, tip):
            fetch = ("fetch", "--quiet", "--force", "--no-tags", "--depth=1", "origin", name)
            ask(source, place, env, *fetch)
            tip = git("rev-parse", "FETCH_HEAD^{commit}", at=place)
        return tip
    if COMMIT.fullmatch(source.ref) and (commit := one_commit(source, place, env)):
        return commit
    heads = [name.removeprefix("refs/heads/") for name in refs if name.startswith("refs/heads/")]
    more = ", ..." if len(heads) > NAMES_SHOWN else ""
    raise RunnerError(
        f"{source.address} has no branch, tag or commit {source.ref!r} (its branches are "
        f"{', '.join(heads[:NAMES_SHOWN])}{more}): correct the project's ref."
    )


def is_there(place: Path, commit: str) -> bool:
    """Tell whether a commit is in the repository."""
    return try_git("cat-file", "-t", commit, at=place) == "commit"


def one_commit(source: Source, place: Path, env: Mapping[str, str]) -> str:
    """Fetch a commit by its id, or by the start of it; returns an empty string if there is none."""
    if WHOLE_COMMIT.fullmatch(source.ref):
        words = ("fetch", "--quiet", "--no-tags", "--depth=1", "origin", source.ref)
        try:
            git(*words, at=place, env=env, timeout=FETCH_SECONDS)
        except RunnerError:
            pass  # a server need not hand out what it has not named
        else:
            return source.ref
    shallow = ("--unshallow",) if (place / ".git" / "shallow").exists() else ()
    everything = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
    ask(source, place, env, "fetch", "--quiet", "--force", *shallow, "origin", *everything)
    return try_git("rev-parse", "--verify", "--quiet", f"{source.ref}^{{commit}}", at=place)


def check_out(source: Source, place: Path, commit: str, env: Mapping[str, str]) -> None:
    """Put a commit's files into the work tree, and nothing else."""
    lfs = bool(shutil.which("git-lfs"))
    if lfs:
        git("lfs", "install", "--local", "--skip-repo", at=place)
    ask(source, place, env, "checkout", "--quiet", "--force", "--detach", commit)
    if (place / ".gitmodules").exists():
        ask(source, place, env, "submodule", "--quiet", "sync", "--recursive")
        update = ("submodule", "--quiet", "update", "--init", "--recursive", "--force")
        try:
            git(*update, "--depth=1", at=place, env=env, timeout=FETCH_SECONDS)
        except RunnerError:
            ask(source, place, env, *update)
    ask(source, place, env, "clean", "--quiet", "-ffdx")
    if lfs:
        each = "git lfs install --local --skip-repo >/dev/null && git lfs pull"
        ask(source, place, env, "lfs", "pull")
        ask(source, place, env, "submodule", "--quiet", "foreach", "--recursive", each)


def ask(
    source: Source, place: Path, env: Mapping[str, str], *words: str, timeout: float = FETCH_SECONDS
) -> str:
    """Run git with what the server asks for; what it says against it is one sentence."""
    try:
        return git(*words, at=place, env=env, timeout=timeout)
    except RunnerError as error:
        raise RunnerError(explained(source, str(error))) from None


def explained(source: Source, said: str) -> str:
    """Say in one sentence what a server's refusal means."""
    _, password = source.login
    for secret_text in filter(None, (password, urllib.parse.quote(password, safe=""))):
        said = said.replace(secret_text, "***")
    named = source.address
    if found := re.search(r"clone of '([^']+)' into submodule path", said):
        named = f"{named}'s submodule {Source(found[1]).address}"
    token = "the project's token" if password else "a visitor without a token"
    key = "the project's ssh_key" if source.ssh_key else "this machine's own SSH keys"
    host_key = "is not the one named in host_key" if source.host_key else "is not known here"
    last = without_passwords(said.strip().rpartition("\n")[2])
    sentences = {
        WRONG_HOST_KEY: f"The host key of {source.host}, which has {named}, {host_key}: compare "
        "`ssh-keyscan` of that host with what its owner publishes, and set the project's host_key.",
        NO_KEY: f"The ssh_key for {named} is no private key without a passphrase: correct it.",
        REFUSED: f"{named} refuses {token}: set the project's token to one that may read it.",
        WRONG_KEY: f"{named} refuses {key}: add the public half to the deploy keys there.",
        NOT_PUSHED: f"{named} names a commit of a submodule that its own server has not: "
        f"push the submodule too ({last}).",
        SILENT: f"{named} does not answer ({last}): correct the source, or run again later.",
        NOT_THERE: f"There is no repository at {named}, or none that may be seen with what was "
        "given: correct the project's source, its token or its ssh_key.",
    }
    for pattern, sentence in sentences.items():
        if re.search(pattern, said):
            return sentence
    return without_passwords(f"{named}: {' '.join(said.split())}")


@contextmanager
def access(source: Source) -> Iterator[dict[str, str]]:
    """Return the environment in which git may read a source; its secrets are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="dvc-source-") as made:
        kept = Path(made)
        yield {
            "GIT_CONFIG_NOSYSTEM": "0",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": askpass(source, kept),
            "GIT_SSH_COMMAND": ssh_command(source, kept),
            # a repository must not bring in files of this machine by a submodule's address
            "GIT_ALLOW_PROTOCOL": "https:http:ssh:git" + (":file" if source.is_local else ""),
            "GIT_LFS_SKIP_SMUDGE": "1",
            "GIT_HTTP_LOW_SPEED_LIMIT": "1",
            "GIT_HTTP_LOW_SPEED_TIME": "30",
            "LC_ALL": "C",
            **only_token(source),
        }


def only_token(source: Source) -> dict[str, str]:
    """Return settings by which no password that this machine keeps is tried before the token."""
    if not source.login[1]:
        return {}
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "credential.helper",
        "GIT_CONFIG_VALUE_0": "",
    }


def askpass(source: Source, kept: Path) -> str:
    """Write a program that tells git user and password for this server, and for no other one."""
    user, password = source.login
    if not password:
        return ""
    parts = urllib.parse.urlsplit(source.address)
    secret(kept / "user", user)
    secret(kept / "token", password)
    by_name = shlex.quote(f"Username for '{parts.scheme}://{parts.netloc}': ")
    of_user = shlex.quote(f"Password for '{parts.scheme}://")
    at_host = shlex.quote(f"@{parts.netloc}': ")
    program = secret(
        kept / "askpass",
        f'#!/bin/sh\ncase "$1" in\n{by_name}) cat "${{0%/*}}/user" ;;\n'
        f'{of_user}*{at_host}) cat "${{0%/*}}/token" ;;\n*) exit 1 ;;\nesac\n',
    )
    program.chmod(0o700)
    return str(program)


def ssh_command(source: Source, kept: Path) -> str:
    """Return how git calls SSH: never asking, and only with the keys that were given, if any."""
    words = list(SSH)
    if source.ssh_key:
        # an editor or a vault may have taken its last line's end, which OpenSSH insists on
        key = secret(kept / "key", "\n".join(source.ssh_key.strip().splitlines()) + "\n")
        words += ["-F", "/dev/null", "-i", str(key)]
        words += ["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"]
    if source.host_key:
        lines = [line.strip() for line in source.host_key.splitlines() if line.strip()]
        known = [
            f"{source.host} {line}" if re.match(r"(sk-)?(ssh|ecdsa)-", line) else line
            for line in lines
        ]
        hosts = secret(kept / "known_hosts", "\n".join(known) + "\n")
        words += ["-o", f"UserKnownHostsFile={hosts}", "-o", "GlobalKnownHostsFile=/dev/null"]
    return shlex.join(words)


def secret(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path
