"""What of a runner's archive gets into a user's checkout."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from ansible.errors import AnsibleActionFail
from tests.unit.conftest import load

results = load("dvc_runner/action_plugins/dvc_results.py")


def archive_of(at: Path, *members: tuple[str, bytes, str]) -> Path:
    """Write a tar archive of names, types and contents, or targets of links."""
    path = at / "results.tar"
    with tarfile.open(path, "w") as output:
        for name, kind, text in members:
            entry = tarfile.TarInfo(name)
            entry.type = kind
            if kind == tarfile.REGTYPE:
                entry.size = len(text)
            else:
                entry.linkname = text
            output.addfile(entry, io.BytesIO(text.encode()))
    return path


def test_files_and_second_names_of_files_are_unpacked(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path,
        ("data", tarfile.DIRTYPE, ""),
        ("data/raw.csv", tarfile.REGTYPE, "1;2"),
        ("data/same.csv", tarfile.LNKTYPE, "data/raw.csv"),
        ("dvc.lock", tarfile.REGTYPE, ""),
    )
    results.unpack(archive, tmp_path / "new")
    assert results.differing(tmp_path / "new", tmp_path / "project") == [
        "data/raw.csv",
        "data/same.csv",
        "dvc.lock",
    ]
    assert (tmp_path / "new/data/same.csv").read_text() == "1;2"


def test_what_is_no_file_stays_out(tmp_path: Path) -> None:
    archive = archive_of(
        tmp_path, ("passwd", tarfile.SYMTYPE, "/etc/passwd"), ("pipe", tarfile.FIFOTYPE, "")
    )
    results.unpack(archive, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["../up", "data/../../up", "/tmp/absolute"])  # noqa: S108 - never written
def test_a_name_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    archive = archive_of(tmp_path, (name, tarfile.REGTYPE, "x"))
    with pytest.raises(AnsibleActionFail, match="outside of a project"):
        results.unpack(archive, tmp_path / "new")
    assert not (tmp_path / "up").exists()
