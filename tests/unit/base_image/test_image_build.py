"""Building images: what the person who waits sees, and what a build is told of this host."""

from __future__ import annotations

import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.unit.conftest import ROLES, RunModule, load

build = load("base_image/library/image_build.py")
MODULE = "base_image/library/image_build.py"


@pytest.fixture
def at(tmp_path: Path) -> SimpleNamespace:
    """Where a build writes its log and its progress."""
    return SimpleNamespace(
        log=tmp_path / "web.log",
        file=tmp_path / "progress",
        progress=build.Progress(tmp_path / "progress"),
    )


def run(at: SimpleNamespace, script: str) -> None:
    """Run a shell script as the tool that builds image `web`."""
    build.run(["sh", "-c", script], at.log, "web", at.progress)


def test_every_step_of_a_build_is_told_and_its_other_output_is_not(at: SimpleNamespace) -> None:
    run(at, "echo 'Step 1/2 : FROM base'; echo noise; echo 'Step 2/2 : RUN make'")
    shown = at.file.read_text()
    assert [line.split("  ")[-1].strip() for line in shown.splitlines()] == [
        "1/2 FROM base",
        "2/2 RUN make",
    ]
    assert all("web" in line for line in shown.splitlines())
    assert "noise" in at.log.read_text()


def test_a_failed_build_says_the_tools_own_last_lines_its_code_and_where_the_log_is(
    at: SimpleNamespace,
) -> None:
    script = "for n in $(seq 100); do echo line $n; done; echo 'E: no such package' >&2; exit 7"
    with pytest.raises(build.BuildError) as failure:
        run(at, script)
    said = str(failure.value)
    assert said.startswith("Image web: sh -c ended with code 7.")
    assert "  | line 100\n  | E: no such package\n" in said
    assert "line 50\n" not in said
    assert str(at.log) in said
    assert "line 1\n" in at.log.read_text()


def test_output_that_is_no_text_does_not_break_a_build(at: SimpleNamespace) -> None:
    run(at, r"printf 'a \377 b\n'")
    assert "a \N{REPLACEMENT CHARACTER} b" in at.log.read_text()


def test_a_build_is_fed_its_context(at: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "context.tar").write_text("the context")
    build.run(["cat"], at.log, "web", at.progress, tmp_path / "context.tar")
    assert at.log.read_text() == "the context"


def test_a_new_build_starts_an_empty_progress_file(at: SimpleNamespace) -> None:
    at.progress.say("web", "of last time")
    build.Progress(at.file)
    assert at.file.read_text() == ""


# --- mirrors and proxies


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("where", [".config/pip/pip.conf", ".pip/pip.conf"])
def test_the_index_of_this_hosts_pip_is_used_by_pip_and_uv(where: str, home: Path) -> None:
    path = home / where
    path.parent.mkdir(parents=True)
    path.write_text("[global]\nindex-url = https://user:50%25@index.example/simple\n")
    index = "https://user:50%25@index.example/simple"
    assert build.host_settings({}) == {"PIP_INDEX_URL": index, "UV_DEFAULT_INDEX": index}


def test_the_environment_wins_over_pips_file(home: Path) -> None:
    (home / ".pip").mkdir()
    (home / ".pip/pip.conf").write_text("[global]\nindex-url = https://file.example\n")
    found = build.host_settings(
        {"PIP_INDEX_URL": "https://env.example", "UV_DEFAULT_INDEX": "https://uv.example"}
    )
    assert found == {
        "PIP_INDEX_URL": "https://env.example",
        "UV_DEFAULT_INDEX": "https://uv.example",
    }


def test_proxies_are_taken_in_either_spelling_and_nothing_else_is_taken(home: Path) -> None:
    (home / ".pip").mkdir()
    (home / ".pip/pip.conf").write_text("[global]\nindex-url = https://i.example\n")
    found = build.host_settings(
        {
            "https_proxy": "http://proxy.example:3128",
            "NO_PROXY": "localhost",
            "GOPROXY": "https://go.example",
            "HTTP_PROXY": "",
            "MINIO_ROOT_PASSWORD": "no business of a build",
        }
    )
    assert found.keys() - {"PIP_INDEX_URL", "UV_DEFAULT_INDEX"} == {
        "HTTPS_PROXY",
        "NO_PROXY",
        "GOPROXY",
    }
    assert found["HTTPS_PROXY"] == "http://proxy.example:3128"


# --- one build at a time

HOLDER = """
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("image_build", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
with module.only_one(Path(sys.argv[2]), module.Progress(Path(sys.argv[3]))):
    print("holding", flush=True)
    sys.stdin.read()
"""


def hold(lock: Path, progress: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(ROLES / MODULE), str(lock), str(progress)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_second_build_says_that_it_waits_and_goes_on_when_the_first_ends(
    at: SimpleNamespace, tmp_path: Path
) -> None:
    told = tmp_path / "progress-of-second"
    with hold(tmp_path / "lock", at.file) as first:
        assert first.stdout
        assert first.stdout.readline() == "holding\n"
        with hold(tmp_path / "lock", told) as second:
            while not told.exists() or "another build is running" not in told.read_text():
                assert second.poll() is None
            assert second.stdout
            # it says nothing while the first one holds the lock
            assert select.select([second.stdout], [], [], 0.3)[0] == []
            first.communicate()
            assert second.communicate()[0] == "holding\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_lock_that_a_killed_build_left_keeps_nobody_waiting(
    at: SimpleNamespace, tmp_path: Path
) -> None:
    (tmp_path / "lock").write_text("")
    with build.only_one(tmp_path / "lock", at.progress):
        assert at.file.read_text() == ""


# --- the module


def base(**changes: object) -> dict[str, object]:
    recipe = {"source": "auto", "suite": "trixie", "packages": [], "registry_image": ""}
    return {"reference": "local/none:1", **recipe, **changes}


def test_check_mode_builds_nothing_and_writes_nothing(
    tmp_path: Path, run_module: RunModule
) -> None:
    place = tmp_path / "images"
    answer = run_module(MODULE, check=True, base=base(), images=[], directory=str(place))
    assert answer["changed"]
    assert not place.exists()


def test_a_missing_ca_bundle_is_named_before_anything_is_built(
    tmp_path: Path, run_module: RunModule
) -> None:
    bundle = str(tmp_path / "no.crt")
    place = tmp_path / "images"
    answer = run_module(MODULE, base=base(), images=[], directory=str(place), ca_bundle=bundle)
    assert answer["failed"]
    assert f"base_image_ca_bundle {bundle} is not a file" in answer["msg"]
    assert not place.exists()


@pytest.fixture
def no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which docker is a program that fails, and mmdebstrap is missing."""
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "docker").write_text(
        '#!/bin/sh\necho "Error: $1 $2: no route to registry"\nexit 1\n'
    )
    (programs / "docker").chmod(0o755)
    for name in ("sh", "timeout"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    monkeypatch.setenv("PATH", str(programs))
    return programs


@pytest.mark.usefixtures("no_docker")
def test_a_registry_that_does_not_answer_is_told_with_what_it_said_and_the_way_out(
    tmp_path: Path, run_module: RunModule
) -> None:
    recipe = base(source="registry", registry_image="debian:x@sha256:0")
    answer = run_module(MODULE, base=recipe, images=[], directory=str(tmp_path / "images"))
    assert answer["failed"]
    assert "debian:x@sha256:0 cannot be fetched" in answer["msg"]
    assert "no route to registry" in answer["msg"]
    assert "set base_image_source to bootstrap or auto" in answer["msg"]


@pytest.mark.usefixtures("no_docker")
def test_a_missing_bootstrapper_is_named(tmp_path: Path, run_module: RunModule) -> None:
    recipe = base(source="auto", registry_image="debian:x@sha256:0")
    place = tmp_path / "images"
    answer = run_module(MODULE, base=recipe, images=[], directory=str(place))
    assert answer["failed"]
    assert "install the package mmdebstrap" in answer["msg"]
    assert "asking the registry for debian:x@sha256:0" in (place / "progress").read_text()
