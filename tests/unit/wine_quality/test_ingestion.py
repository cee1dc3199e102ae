import hashlib
import io
import json
import socket
import zipfile
from pathlib import Path

import pytest

from wine_quality.config import load_project
from wine_quality.stages import data_ingestion

from .conftest import edit, serving

CSV = b'"a";"b"\n1;2.5\n3;4\n'


def ingest(folder: Path) -> tuple[bytes, dict[str, object]]:
    """Run the stage; the raw table's bytes and the note of its origin."""
    assert data_ingestion.main(["--project", str(folder)]) == 0
    project = load_project(folder)
    return project.path("raw").read_bytes(), json.loads(project.path("source").read_text())


def refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the stage, which must fail; the last line it printed."""
    assert data_ingestion.main(["--project", str(folder)]) == 1
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert not load_project(folder).path("raw").exists()
    return printed.splitlines()[-1]


def given(folder: Path, content: bytes, name: str = "wine.csv") -> None:
    (folder / name).write_bytes(content)
    edit(folder, "config.yaml", data_ingestion__source=name)


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return buffer.getvalue()


def test_the_real_file_is_kept_byte_for_byte_and_known(folder: Path, real_file: Path) -> None:
    edit(folder, "config.yaml", data_ingestion__source=str(real_file))
    raw, origin = ingest(folder)
    assert hashlib.md5(raw).hexdigest() == "2daeecee174368f8a33b82c8cccae3a5"  # noqa: S324
    assert origin["data_source"] == "file"
    assert origin["known_as"] == "uci"
    assert origin["rows"] == 1599
    assert origin["name"] == real_file.name


@pytest.mark.parametrize("separator", [b";", b",", b"\t"])
def test_each_separator_is_found_and_the_bytes_are_kept(folder: Path, separator: bytes) -> None:
    content = CSV.replace(b";", separator)
    given(folder, content)
    raw, origin = ingest(folder)
    assert raw == content
    assert origin["rows"] == 2
    assert "known_as" not in origin


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_become_plain_utf8(folder: Path, encoding: str) -> None:
    given(folder, CSV.decode().encode(encoding))
    assert ingest(folder)[0] == CSV


@pytest.mark.parametrize("separator", [b";", b",", b"\t"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("form", [b"sep=%b", b"\xef\xbb\xbfsep=%b", b'"SEP=%b"'])
def test_a_first_line_that_names_the_separator_goes(
    folder: Path, form: bytes, separator: bytes, end: bytes
) -> None:
    table = CSV.replace(b";", separator).replace(b"\n", end)
    given(folder, form % separator + end + table)
    raw, origin = ingest(folder)
    assert raw == table
    assert origin["rows"] == 2


def test_a_zip_with_one_csv_is_unpacked_and_its_own_checksum_noted(folder: Path) -> None:
    archive = zipped(readme_txt=b"hello", wine_csv=CSV)
    given(folder, archive, "wine.zip")
    raw, origin = ingest(folder)
    assert raw == CSV
    assert origin["sha256"] == hashlib.sha256(archive).hexdigest()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"7.4;0.7;5\n7.8;0.9;6\n", "has no header, the first line holds the values 7.4, 0.7, 5"),
        (b'"a";"b"\n', "has a header but no rows"),
        (b"a;b\n1;2\n3\n", "line 3 has 1 cells, the header has 2"),
        (b"a;b;a\n1;2;3\n", "column 'a' is there twice"),
        (b"sep=;\n", "is empty"),
        (b"sep=;\r\na;b\r\n", "has a header but no rows"),
        (b"sep=;\n1;2\n3;4\n", "has no header"),
        (b"sep=;\na;b\n1;2\n3\n", "line 4 has 1 cells, the header has 2"),
        (b"sep=;\na,b\n1,2\n", "the first line says sep=';', the header is separated by ','"),
        (b"sep=|\na|b\n1|2\n", "no ';', ',' or tab in the first line 'sep=|'"),
        (b"hello\nworld\n", "no ';', ',' or tab in the first line 'hello'"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is not text"),
        (b"a;b\n1;\x01\n", "control character 0x01"),
        ("säure;b\n1;2\n".encode("latin-1"), "is not text in UTF-8 or UTF-16 (byte 0xe4"),
        (b"PK\x03\x04 and no more", "cannot be unpacked"),
        (zipped(a_csv=CSV, b_csv=CSV), "this one has 2 (a.csv, b.csv)"),
        (zipped(a_txt=CSV), "this one has 0 (none)"),
    ],
)
def test_a_file_that_is_no_table_is_refused_by_name_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    given(folder, content)
    sentence = refused(folder, capsys)
    assert "wine.csv: " in sentence
    assert said in sentence


def test_a_file_that_is_not_there_is_refused_with_the_choices(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "config.yaml", data_ingestion__source="nowhere.csv")
    sentence = refused(folder, capsys)
    assert "'nowhere.csv': there is no such file" in sentence
    assert "synthetic" in sentence


def test_a_wrong_checksum_is_refused_with_both_even_where_a_fallback_is_allowed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given(folder, CSV)
    edit(
        folder,
        "config.yaml",
        data_ingestion__sha256="0" * 64,
        data_ingestion__fallback="synthetic",
    )
    sentence = refused(folder, capsys)
    assert hashlib.sha256(CSV).hexdigest() in sentence
    assert "0" * 64 in sentence


def test_the_right_checksum_is_accepted(folder: Path) -> None:
    given(folder, CSV)
    edit(folder, "config.yaml", data_ingestion__sha256=hashlib.sha256(CSV).hexdigest())
    assert ingest(folder)[0] == CSV


def test_a_download_shows_its_address_but_not_its_credentials(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(200, CSV) as (address, seen):
        edit(
            folder,
            "config.yaml",
            data_ingestion__source=f"http://me:s3cret@{address}/wine.csv?token=s3cret",
        )
        raw, origin = ingest(folder)
    assert raw == CSV
    assert origin["data_source"] == "url"
    assert origin["name"] == f"http://{address}/wine.csv"
    assert seen == ["Basic bWU6czNjcmV0"]
    assert "s3cret" not in capsys.readouterr().err


def test_a_known_source_with_other_bytes_is_refused_although_it_answered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(200, CSV) as (address, _):
        edit(
            folder,
            "config.yaml",
            known_sources__uci__url=f"http://{address}/",
            data_ingestion__fallback="synthetic",
        )
        assert "known_sources.uci.sha256" in refused(folder, capsys)


def test_a_known_source_with_the_known_bytes_is_called_by_its_name(folder: Path) -> None:
    with serving(200, CSV) as (address, _):
        edit(
            folder,
            "config.yaml",
            known_sources__uci__url=f"http://{address}/",
            known_sources__uci__sha256=hashlib.sha256(CSV).hexdigest(),
        )
        assert ingest(folder)[1]["data_source"] == "uci"


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_an_address_that_does_not_answer_stops_the_stage_and_names_the_ways_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(folder, "config.yaml", known_sources__uci__url=f"http://127.0.0.1:{closed_port()}/x")
    sentence = refused(folder, capsys)
    assert "cannot be reached" in sentence
    for way_out in ("make up DATA=<path>", "`source`", "`fallback: synthetic`"):
        assert way_out in sentence


@pytest.mark.parametrize(("status", "claimed"), [(503, None), (200, 1000)])
def test_an_answer_that_fails_or_breaks_off_counts_as_unreachable(
    folder: Path, status: int, claimed: int | None
) -> None:
    with serving(status, CSV, claimed) as (address, _):
        edit(
            folder,
            "config.yaml",
            data_ingestion__source=f"http://{address}/x",
            data_ingestion__fallback="synthetic",
        )
        assert ingest(folder)[1]["data_source"] == "synthetic"


def test_a_server_that_never_answers_is_given_up_after_the_timeout(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/x"
        edit(folder, "config.yaml", data_ingestion__source=address, data_ingestion__timeout=0.2)
        assert "timed out" in refused(folder, capsys)


@pytest.mark.parametrize(
    "source", ["ftp://host/x.csv", "file:///etc/passwd", "http://", "http://["]
)
def test_an_address_that_is_not_http_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], source: str
) -> None:
    edit(folder, "config.yaml", data_ingestion__source=source, data_ingestion__fallback="synthetic")
    assert "http:// or https:// address" in refused(folder, capsys)


def test_a_wrong_address_is_no_reason_for_the_fallback(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(404, b"") as (address, _):
        edit(
            folder,
            "config.yaml",
            data_ingestion__source=f"http://{address}/x",
            data_ingestion__fallback="synthetic",
        )
        assert "answered 404" in refused(folder, capsys)


def test_the_fallback_says_synthetic_in_the_log_and_in_the_note(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(
        folder,
        "config.yaml",
        known_sources__uci__url=f"http://127.0.0.1:{closed_port()}/x",
        data_ingestion__fallback="synthetic",
    )
    assert ingest(folder)[1]["data_source"] == "synthetic"
    assert "synthetic" in capsys.readouterr().err
    assert "synthetic" in (folder / "logs/logs.log").read_text()
