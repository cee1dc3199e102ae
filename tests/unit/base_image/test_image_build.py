"""Building images: what the person who waits sees, and what a build is told of this host."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.unit.conftest import ROLES, RunModule, load

build = load("base_image/library/image_build.py")
MODULE = "base_image/library/image_build.py"


def progress(place: Path) -> str:
    """What is told of builds in a directory."""
    return (place / "progress").read_text()


def run(place: Path, script: str) -> str:
    """Run a shell script as the tool that builds image `web`; the whole log."""
    build.Workshop(place).run("web", ["sh", "-c", script])
    return (place / "web.log").read_text()


def test_every_step_of_a_build_is_told_and_its_other_output_is_not(tmp_path: Path) -> None:
    log = run(tmp_path, "echo 'Step 1/2 : FROM base'; echo noise; echo 'Step 2/2 : RUN make'")
    shown = progress(tmp_path)
    assert [line.split("  ")[-1].strip() for line in shown.splitlines()] == [
        "1/2 FROM base",
        "2/2 RUN make",
    ]
    assert all("web" in line for line in shown.splitlines())
    assert "noise" in log


def test_a_failed_build_says_the_tools_own_last_lines_its_code_and_where_the_log_is(
    tmp_path: Path,
) -> None:
    script = "for n in $(seq 100); do echo line $n; done; echo 'E: no such package' >&2; exit 7"
    with pytest.raises(build.BuildError) as failure:
        run(tmp_path, script)
    said, log = str(failure.value), tmp_path / "web.log"
    assert said.startswith("Image web: sh -c ended with code 7.")
    assert "  | line 100\n  | E: no such package\n" in said
    assert "line 50\n" not in said
    assert str(log) in said
    assert "line 1\n" in log.read_text()


def test_output_that_is_no_text_does_not_break_a_build(tmp_path: Path) -> None:
    assert "a \N{REPLACEMENT CHARACTER} b" in run(tmp_path, r"printf 'a \377 b\n'")


def test_a_build_is_fed_its_context(tmp_path: Path) -> None:
    (tmp_path / "context.tar").write_text("the context")
    build.Workshop(tmp_path).run("web", ["cat"], tmp_path / "context.tar")
    assert (tmp_path / "web.log").read_text() == "the context"


def test_a_new_build_starts_an_empty_progress_file(tmp_path: Path) -> None:
    build.Workshop(tmp_path).say("web", "of last time")
    build.Workshop(tmp_path)
    assert progress(tmp_path) == ""


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


def engine(place: Path, monkeypatch: pytest.MonkeyPatch, build: str) -> None:
    """Put an engine first in PATH that has the base image alone, and what a build does there."""
    docker = place / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1" != image ] || [ "$3" = local/base:bootstrap-1 ] || exit 1\n'
        f'[ "$1" = build ] || exit 0\n{build}'
    )
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:/usr/bin:/bin")


def test_a_password_in_a_build_argument_is_on_no_command_line_and_in_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    engine(tmp_path, monkeypatch, 'echo "words: $*"; echo "proxy: $HTTPS_PROXY"; exit 1\n')
    answer = run_module(
        MODULE,
        base=base(),
        names=AUTO,
        images=web(tmp_path),
        directory=str(tmp_path / "images"),
        build_args={"HTTPS_PROXY": "http://user:correct-horse@proxy.example:3128", "JOBS": 2},
    )
    log = (tmp_path / "images/web.log").read_text().splitlines()
    assert "--build-arg HTTPS_PROXY --build-arg JOBS" in log[0]
    assert "correct-horse" not in log[0]
    assert log[1] == "proxy: http://user:correct-horse@proxy.example:3128"
    assert "proxy: http://user:********@proxy.example:3128" in answer["msg"]
    assert "correct-horse" not in str(answer)


def web(place: Path) -> dict[str, str]:
    """An image on the base, and its context."""
    with tarfile.open(place / "web.tar", "w"):
        pass
    return {"web": str(place / "web.tar")}


def test_what_is_built_may_be_read_by_all_whatever_the_umask_and_the_bundles_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    engine(tmp_path, monkeypatch, f"umask; cat >{tmp_path}/context.tar\n")
    bundle = tmp_path / "bundle.crt"
    bundle.write_text("a certificate")
    bundle.chmod(0o600)
    before = os.umask(0o077)
    try:
        run_module(
            MODULE,
            base=base(),
            names=AUTO,
            images=web(tmp_path),
            directory=str(tmp_path / "images"),
            ca_bundle=str(bundle),
        )
    finally:
        os.umask(before)
    assert (tmp_path / "images/web.log").read_text() == "0022\n"
    assert (tmp_path / "images").stat().st_mode & 0o777 == 0o755
    with tarfile.open(tmp_path / "context.tar") as context:
        (member,) = context.getmembers()
        assert (member.name, member.mode) == ("ca-certificates.crt", 0o644)


def context(place: Path, name: str, dockerfile: str) -> str:
    """A context with this Dockerfile."""
    path = place / f"{name}.tar"
    (place / "Dockerfile").write_text(dockerfile)
    with tarfile.open(path, "w") as archive:
        archive.add(place / "Dockerfile", "Dockerfile")
    return str(path)


def test_images_of_one_dockerfile_are_built_one_after_another_even_where_the_first_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    engine(
        tmp_path,
        monkeypatch,
        "for word; do case $word in local/*) tag=$word ;; esac; done\n"
        f'echo "begin $tag" >> {tmp_path}/order; sleep 0.4; echo "end $tag" >> {tmp_path}/order\n'
        '[ "$tag" != local/one ]\n',
    )
    names = ("one", "other", "two")
    answer = run_module(
        MODULE,
        base=base(),
        names={"bootstrap": {**AUTO["bootstrap"], "images": {n: f"local/{n}" for n in names}}},
        images={n: context(tmp_path, n, "FROM b" if n == "other" else "FROM a") for n in names},
        directory=str(tmp_path / "images"),
    )
    assert "Image one" in answer["msg"]
    order = (tmp_path / "order").read_text().splitlines()
    alike = [line for line in order if "other" not in line]
    assert alike == ["begin local/one", "end local/one", "begin local/two", "end local/two"]
    assert order.index("begin local/other") < order.index("end local/one")


# --- one build at a time

HOLDER = """
import sys
from pathlib import Path
from tests.unit.conftest import load
with load(sys.argv[1]).Workshop(Path(sys.argv[2])).alone():
    print("holding", flush=True)
    sys.stdin.read()
"""


def hold(place: Path) -> subprocess.Popen[str]:
    """Start a process that builds nothing, alone, until its input ends."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, MODULE, str(place)],
        cwd=ROLES.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_second_build_says_that_it_waits_and_goes_on_when_the_first_ends(tmp_path: Path) -> None:
    with hold(tmp_path) as first:
        assert first.stdout
        assert first.stdout.readline() == "holding\n"
        with hold(tmp_path) as second:
            while "another build is running" not in progress(tmp_path):
                assert second.poll() is None
            assert second.stdout
            # it says nothing while the first one holds the lock
            assert select.select([second.stdout], [], [], 0.3)[0] == []
            first.communicate()
            assert second.communicate()[0] == "holding\n"
    assert (first.returncode, second.returncode) == (0, 0)


def test_a_lock_that_a_killed_build_left_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("")
    with build.Workshop(tmp_path).alone():
        assert progress(tmp_path) == ""


# --- the module


AUTO = {
    source: {"base": f"local/base:{source}-1", "images": {"web": f"local/web:{source[0]}"}}
    for source in ("registry", "bootstrap")
}
REGISTRY = "debian:x@sha256:0"


def base(registry: str = "") -> dict[str, object]:
    return {"suite": "trixie", "packages": [], "registry_image": registry}


def test_check_mode_builds_nothing_and_writes_nothing(
    tmp_path: Path, run_module: RunModule
) -> None:
    place = tmp_path / "images"
    answer = run_module(
        MODULE, check=True, base=base(), names=AUTO, images={}, directory=str(place)
    )
    assert answer["changed"]
    assert not place.exists()


def test_a_missing_ca_bundle_is_named_before_anything_is_built(
    tmp_path: Path, run_module: RunModule
) -> None:
    bundle = str(tmp_path / "no.crt")
    place = tmp_path / "images"
    given = {"names": AUTO, "images": {}, "directory": str(place), "ca_bundle": bundle}
    answer = run_module(MODULE, base=base(), **given)
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
    given = {"names": {"registry": AUTO["registry"]}, "images": {}}
    answer = run_module(MODULE, base=base(REGISTRY), directory=str(tmp_path / "images"), **given)
    assert answer["failed"]
    assert "debian:x@sha256:0 cannot be fetched" in answer["msg"]
    assert "no route to registry" in answer["msg"]
    assert "set base_image_source to bootstrap or auto" in answer["msg"]


@pytest.mark.usefixtures("no_docker")
def test_a_missing_bootstrapper_is_named(tmp_path: Path, run_module: RunModule) -> None:
    recipe = base(REGISTRY)
    place = tmp_path / "images"
    answer = run_module(MODULE, base=recipe, names=AUTO, images={}, directory=str(place))
    assert answer["failed"]
    assert "install the package mmdebstrap" in answer["msg"]
    assert "asking the registry for debian:x@sha256:0" in (place / "progress").read_text()


@pytest.mark.parametrize("there", ["registry", "bootstrap"])
def test_the_source_of_a_base_that_is_there_is_taken_and_no_registry_is_asked(
    there: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_module: RunModule
) -> None:
    base_of_it = AUTO[there]["base"]
    (tmp_path / "docker").write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/calls\n[ "$1" != image ] || [ "$3" = {base_of_it} ]\n'
    )
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    recipe = base(REGISTRY)
    place = str(tmp_path / "images")
    given = {"base": recipe, "names": AUTO, "directory": place}
    answer = run_module(MODULE, images=web(tmp_path), **given)
    assert (answer["base_source"], answer["built"]) == (there, [f"local/web:{there[0]}"])
    calls = (tmp_path / "calls").read_text()
    assert "pull" not in calls
    assert re.search(
        rf"^build .*--build-arg BASE_IMAGE .*-t local/web:{there[0]} -$", calls, re.MULTILINE
    )
    again = run_module(MODULE, images={}, **given)
    assert not again["changed"]
