"""Stage 1: bring the raw table in from a known source, a URL, a file or the sample generator."""

import base64
import hashlib
import io
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from wine_quality import sample
from wine_quality.config import DataIngestion, KnownSource, Project, without_credentials
from wine_quality.dataset import Table, decode, parse, undeclared
from wine_quality.runtime import PipelineError, log, run_stage, write_atomic

MAX_BYTES = 64 * 2**20  # of a download, and of a csv inside a zip
_WAYS_OUT = (
    "give a file (`make up DATA=<path>`), configure another `source`, or set `fallback: synthetic`"
    " under data_ingestion in config.yaml"
)


class UnreachableError(PipelineError):
    """An address does not answer; a wrong file is never this."""


@dataclass(frozen=True)
class Received:
    """Bytes as they came, and where from; `name` carries no credentials."""

    data_source: str
    name: str
    raw: bytes


def fetch(settings: DataIngestion, known: Mapping[str, KnownSource], root: Path) -> Received:
    """Get the configured source's bytes and check them against the checksums that are known.

    Args:
        settings: what is configured.
        known: the known sources by name.
        root: directory that a relative file name starts from.

    Raises:
        UnreachableError: an address does not answer and there is no fallback.
        PipelineError: there is no such file, or its checksum is another.
    """
    source = settings.source
    expected = settings.sha256
    try:
        if source == "synthetic":
            received = _synthetic(settings)
        elif source in known:
            address = known[source].url
            received = Received(
                source, without_credentials(address), download(address, settings.timeout)
            )
            _check(received, known[source].sha256, f"known_sources.{source}.sha256")
        elif "://" in source:
            received = Received(
                "url", without_credentials(source), download(source, settings.timeout)
            )
        else:
            received = _from_file(root / Path(source).expanduser(), source)
    except UnreachableError as error:
        if settings.fallback == "none":
            raise PipelineError(f"{error}; {_WAYS_OUT}") from None
        log.warning("%s; using the synthetic sample instead: no real wine in what follows", error)
        return _synthetic(settings)
    if expected:
        _check(received, expected, "data_ingestion.sha256")
    return received


def _synthetic(settings: DataIngestion) -> Received:
    rows, seed = settings.synthetic.rows, settings.synthetic.seed
    return Received("synthetic", f"sample rows={rows} seed={seed}", sample.generate(rows, seed))


def _from_file(path: Path, source: str) -> Received:
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "there is no such file"
        raise PipelineError(
            f"config.yaml: data_ingestion.source is {source!r}: {what}; give a csv or zip file,"
            " a URL, a name under known_sources or 'synthetic'"
        )
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise PipelineError(f"{path.name}: {size} bytes, allowed: at most {MAX_BYTES}")
    return Received("file", path.name, path.read_bytes())


def _check(received: Received, expected: str, key: str) -> None:
    seen = _sha256(received.raw)
    if seen != expected:
        raise PipelineError(
            f"{received.name}: sha256 is {seen}, expected {expected} ({key} in config.yaml);"
            " the file is damaged or another one: get it again, or correct the checksum"
        )


def _sha256(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def download(address: str, timeout: float) -> bytes:
    """Bytes behind an http(s) address, within `timeout` seconds in all and MAX_BYTES.

    Raises:
        UnreachableError: nothing answers, or not in time.
        PipelineError: the address is wrong, or the answer is an error or too large.
    """
    shown = without_credentials(address)
    try:
        parts = urllib.parse.urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise PipelineError(
            f"config.yaml: data_ingestion.source is {shown!r}, allowed: an http:// or https://"
            " address"
        )
    deadline = time.monotonic() + timeout
    log.info("downloading %s", shown)
    try:
        with _opener().open(_request(parts), timeout=timeout) as answer:
            content = bytearray()
            while chunk := answer.read1(2**16):
                content += chunk
                if len(content) > MAX_BYTES:
                    raise PipelineError(f"{shown}: more than {MAX_BYTES} bytes, which is no table")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not complete after {timeout:g} s")
            length = answer.headers.get("Content-Length")
            if length is not None and len(content) < int(length):
                raise ConnectionError(f"broke off after {len(content)} of {length} bytes")
    except urllib.error.HTTPError as error:
        with error:
            raise _http_fault(shown, error) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise UnreachableError(f"{shown}: cannot be reached ({reason})") from None
    return bytes(content)


def _http_fault(shown: str, error: urllib.error.HTTPError) -> PipelineError:
    said = f"answered {error.code} {error.reason}".rstrip()
    if error.code >= 500 or error.code in (407, 408, 429):  # noqa: PLR2004  HTTP's own numbers
        return UnreachableError(f"{shown}: cannot be reached ({said})")
    return PipelineError(f"{shown}: {said}; correct data_ingestion.source in config.yaml")


def _opener() -> urllib.request.OpenerDirector:
    # ssl itself honours SSL_CERT_FILE; the other name is what pip and requests users set
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") if "SSL_CERT_FILE" not in os.environ else None
    context = ssl.create_default_context(cafile=bundle or None)
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))


def _request(parts: urllib.parse.SplitResult) -> urllib.request.Request:
    host = parts.netloc.rpartition("@")[2]
    request = urllib.request.Request(parts._replace(netloc=host).geturl())  # noqa: S310  checked by the caller
    if parts.username is not None:
        pair = (
            f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        )
        token = base64.b64encode(pair.encode()).decode()
        # unredirected: another host must not learn it
        request.add_unredirected_header("Authorization", f"Basic {token}")
    return request


def unpack(received: Received) -> bytes:
    """The table's bytes: what was received, or the one csv inside it when that is a zip.

    Raises:
        PipelineError: the zip is damaged, too large, or holds no or several csv files.
    """
    if not received.raw.startswith(b"PK\x03\x04"):
        return received.raw
    try:
        with zipfile.ZipFile(io.BytesIO(received.raw)) as archive:
            names = [
                entry
                for entry in archive.infolist()
                if entry.filename.lower().endswith(".csv")
                and not entry.filename.startswith("__MACOSX/")
            ]
            if len(names) != 1:
                found = ", ".join(entry.filename for entry in names) or "none"
                raise PipelineError(
                    f"{received.name}: allowed is a zip with one csv file, this one has"
                    f" {len(names)} ({found})"
                )
            if names[0].file_size > MAX_BYTES:
                raise PipelineError(
                    f"{received.name}: {names[0].filename} has {names[0].file_size} bytes,"
                    f" allowed: at most {MAX_BYTES}"
                )
            return archive.read(names[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise PipelineError(f"{received.name}: cannot be unpacked ({error})") from None


def ingest(received: Received, known: Mapping[str, KnownSource]) -> tuple[bytes, Table, bytes]:
    """Turn what was received into the raw table and a note of its origin.

    UTF-8 without a byte order mark is kept byte for byte; anything else is re-encoded to it, and
    a first line `sep=;` goes.

    Returns:
        The file's bytes, the table in it, and the origin as JSON.

    Raises:
        PipelineError: it is no table.
    """
    raw = unpack(received)
    text = decode(raw, received.name)
    table = parse(text, received.name)
    origin = {
        "data_source": received.data_source,
        "name": received.name,
        "sha256": _sha256(received.raw),
        "rows": len(table.rows),
    }
    for name, entry in known.items():
        if received.data_source != name and entry.sha256 == _sha256(raw):
            origin["known_as"] = name
    note = json.dumps(origin, indent=2, sort_keys=True) + "\n"
    return undeclared(text).encode(), table, note.encode()


def _work(project: Project) -> None:
    config = project.config
    received = fetch(config.data_ingestion, config.known_sources, project.root)
    raw, table, origin = ingest(received, config.known_sources)
    write_atomic(project.path("raw"), raw)
    write_atomic(project.path("source"), origin)
    log.info(
        "%d rows and %d columns from %s (data_source: %s)",
        len(table.rows),
        len(table.header),
        received.name,
        received.data_source,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage in a project directory."""
    return run_stage("data_ingestion", _work, argv)


if __name__ == "__main__":
    sys.exit(main())
