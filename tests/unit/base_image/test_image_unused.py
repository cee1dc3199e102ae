"""What goes when unused images are removed, and how much space that is said to free."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from tests.unit.conftest import RunModule, load

unused = load("base_image/library/image_unused.py")
MODULE = "base_image/library/image_unused.py"
MIB = 2**20

# images as rows `id name labels`, containers as ids of images, histories by the id of an image
DOCKER = """#!/bin/sh
cd {place}
case "$1 $*" in
  version*) echo 20.10 ;;
  images*mlops.image*) grep ' image$' images | cut -d' ' -f1,2 ;;
  images*mlops.stage*) grep ' stage$' images | cut -d' ' -f1,2 ;;
  images*) cut -d' ' -f1,2 images ;;
  ps*label=mlops.platform*working_dir*) echo {place}/other ;;
  ps*) cat containers ;;
  inspect*) cat containers ;;
  history*) for word; do :; done; tac "history-$word" ;;
  rmi*) echo "$2" >> removed ;;
esac
"""
IMAGES = """\
base-old localhost/mlops/base:old image
web-old localhost/mlops/web:old image
web-older localhost/mlops/web:older image
web-now localhost/mlops/web:now image
busy localhost/mlops/db:1 image
stage <none>:<none> stage
theirs localhost/mine/web:1 image
other debian:trixie none
"""
HISTORIES = {
    "base-old": "1 import\t100000000",
    "web-old": "1 import\t100000000\n2 COPY a\t20000000\n3 CMD\t0",
    "web-older": "1 import\t100000000\n2 COPY b\t30000000",
    "web-now": "4 import\t100000000\n2 COPY a\t20000000",
    "busy": "4 import\t100000000\n5 RUN\t10000000",
    "stage": "4 import\t100000000\n6 RUN\t7000000",
    "theirs": "7 import\t50000000",
    "other": "8 import\t60000000",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of images that are declared, used, superseded, left, and somebody else's."""
    (tmp_path / "images").write_text(IMAGES)
    (tmp_path / "containers").write_text("busy\n")
    for name, text in HISTORIES.items():
        (tmp_path / f"history-{name}").write_text(text + "\n")
    (tmp_path / "docker").write_text(DOCKER.format(place=tmp_path))
    (tmp_path / "docker").chmod(0o755)
    build = tmp_path / "build"
    (build / "bootstrap/etc").mkdir(parents=True)
    (build / "bootstrap/etc/a").write_bytes(bytes(5 * MIB))
    (build / "base.tar").write_bytes(bytes(3 * MIB))
    (build / "web.log").write_text("kept")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


DECLARED = {
    "bootstrap": {"base": "localhost/mlops/base:now", "images": {"web": "localhost/mlops/web:now"}}
}
GOES = ["localhost/mlops/web:old", "localhost/mlops/web:older", "stage", "localhost/mlops/base:old"]


def options(place: Path) -> dict[str, object]:
    """What a prune gives the module."""
    return {"prefix": "localhost/mlops", "names": DECLARED, "directory": str(place / "build")}


def test_only_images_of_ours_that_are_neither_used_nor_declared_go_and_the_base_last(
    place: Path, run_module: RunModule
) -> None:
    answer = run_module(MODULE, **options(place))
    files = [str(place / "build" / name) for name in ("base.tar", "bootstrap")]
    assert answer["removed"] == [*GOES, *files]
    assert (place / "removed").read_text().split() == GOES
    assert [path.name for path in (place / "build").iterdir() if path.name != "lock"] == ["web.log"]


def test_layers_count_once_and_only_where_no_image_that_stays_has_them(
    place: Path, run_module: RunModule
) -> None:
    answer = run_module(MODULE, **options(place))
    # the old base once, what stood on it, and what the stage had beyond the base of today
    assert answer["freed_mb"] == (100 + 20 + 30 + 7) * 10**6 // MIB + 3 + 5


def test_an_image_that_goes_away_meanwhile_stops_nothing(
    place: Path, run_module: RunModule
) -> None:
    (place / "history-web-older").unlink()
    answer = run_module(MODULE, check=True, **options(place))
    assert answer["removed"][: len(GOES)] == GOES
    assert answer["freed_mb"] == (100 + 20 + 7) * 10**6 // MIB + 3 + 5


def test_check_mode_tells_the_same_and_removes_nothing(place: Path, run_module: RunModule) -> None:
    told = run_module(MODULE, check=True, **options(place))
    assert not (place / "removed").exists()
    assert (place / "build/base.tar").exists()
    done = run_module(MODULE, **options(place))
    assert told["changed"]
    assert (told["removed"], told["freed_mb"]) == (done["removed"], done["freed_mb"])


def test_while_images_are_built_nothing_is_removed(place: Path, run_module: RunModule) -> None:
    with (place / "build/lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = run_module(MODULE, **options(place))
    assert answer["failed"]
    assert f"Images are being built in {place / 'build'}: nothing was removed" in answer["msg"]
    assert not (place / "removed").exists()


def test_where_no_engine_is_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = run_module(MODULE, **options(tmp_path))
    assert (answer["changed"], answer["removed"]) == (False, [])
