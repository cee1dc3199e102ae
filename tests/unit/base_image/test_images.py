"""An image's tag is the hash of what goes into it: it changes when that does, and only then."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleFilterError
from tests.unit.conftest import load

images = load("base_image/filter_plugins/images.py")

RECIPE = {"suite": "trixie", "packages": ["curl"], "registry_image": "d@sha256:1"}


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with a program and a lock file."""
    place = tmp_path / "image"
    (place / "etc").mkdir(parents=True)
    (place / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
    (place / "run.sh").write_text("#!/bin/sh\n")
    (place / "run.sh").chmod(0o755)
    (place / "etc/web.conf").write_text("a = 1\n")
    (place / "requirements.in").write_text("web\n")
    return place


def named(source: str, recipe: dict[str, Any], **builds: Any) -> dict[str, Any]:  # noqa: ANN401
    """The names of base and images, by the source of the base."""
    names: dict[str, Any] = images.names(builds, source, recipe, "local/mlops")
    return names


def tag(context: Path, **files: str) -> str:
    """The reference of the image that a context makes."""
    build: dict[str, Any] = {"context": str(context), "files": files}
    return str(named("bootstrap", RECIPE, web=build)["bootstrap"]["images"]["web"])


def test_a_reference_is_made_of_prefix_service_and_hash(context: Path) -> None:
    name, _, version = tag(context).partition(":")
    assert name == "local/mlops/web"
    assert len(version) == 16
    assert version.isalnum()


def test_the_same_content_has_the_same_tag_wherever_and_whenever_it_was_written(
    context: Path, tmp_path: Path
) -> None:
    before = tag(context)
    os.utime(context / "run.sh", (0, 0))
    os.chown(context / "run.sh", -1, -1)
    moved = context.rename(tmp_path / "elsewhere")
    assert tag(moved) == before


@pytest.mark.parametrize("name", ["Dockerfile", "run.sh", "etc/web.conf"])
def test_a_changed_file_changes_the_tag(name: str, context: Path) -> None:
    before = tag(context)
    with (context / name).open("a") as output:
        output.write("\n")
    assert tag(context) != before


def test_a_file_that_becomes_executable_changes_the_tag(context: Path) -> None:
    before = tag(context)
    (context / "etc/web.conf").chmod(0o755)
    assert tag(context) != before


def test_a_mode_that_git_does_not_keep_does_not_change_the_tag(context: Path) -> None:
    before = tag(context)
    (context / "etc/web.conf").chmod(0o600)
    (context / "run.sh").chmod(0o700)
    assert tag(context) == before


def test_a_renamed_file_changes_the_tag(context: Path) -> None:
    before = tag(context)
    (context / "etc/web.conf").rename(context / "etc/app.conf")
    assert tag(context) != before


def test_content_that_moves_from_one_file_to_its_neighbour_changes_the_tag(context: Path) -> None:
    (context / "a").write_text("xy")
    (context / "b").write_text("z")
    before = tag(context)
    (context / "a").write_text("x")
    (context / "b").write_text("yz")
    assert tag(context) != before


def test_parts_that_only_join_to_the_same_bytes_have_another_hash() -> None:
    assert images.digest(b"base:1", b"2") != images.digest(b"base:", b"12")


@pytest.mark.parametrize("name", ["requirements.in", "uv.in", "__pycache__/run.cpython-313.pyc"])
def test_sources_of_locks_and_caches_do_not_count(name: str, context: Path) -> None:
    before = tag(context)
    (context / name).parent.mkdir(exist_ok=True)
    (context / name).write_text("something new")
    assert tag(context) == before
    build = {"context": str(context)}
    with tarfile.open(fileobj=io.BytesIO(images.context_archive(build))) as archive:
        assert name not in archive.getnames()


def test_a_file_from_elsewhere_counts_as_if_it_were_in_the_context(
    context: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "lock.txt"
    lock.write_text("web==1\n")
    before = tag(context, **{"requirements.txt": str(lock)})
    assert before != tag(context)
    lock.write_text("web==2\n")
    assert tag(context, **{"requirements.txt": str(lock)}) != before
    lock.write_text("web==1\n")
    (context / "requirements.txt").write_text("web==1\n")
    assert tag(context) == before


def test_the_archive_holds_the_context_with_its_modes_and_nobodys_name(context: Path) -> None:
    build = {"context": str(context)}
    with tarfile.open(fileobj=io.BytesIO(images.context_archive(build))) as archive:
        entries = {entry.name: entry for entry in archive}
    assert {name: entry.mode for name, entry in entries.items()} == {
        "Dockerfile": 0o644,
        "etc/web.conf": 0o644,
        "run.sh": 0o755,
    }
    assert {(each.uid, each.gid, each.mtime, each.uname) for each in entries.values()} == {
        (0, 0, 0, "")
    }


def test_a_context_without_a_dockerfile_is_named(context: Path) -> None:
    (context / "Dockerfile").unlink()
    with pytest.raises(AnsibleFilterError, match=f"{context} has no Dockerfile: name its"):
        tag(context)


def test_a_context_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(AnsibleFilterError, match=f"{tmp_path / 'nowhere'} has no Dockerfile"):
        tag(tmp_path / "nowhere")


def test_a_missing_file_from_elsewhere_is_named_with_its_path(
    context: Path, tmp_path: Path
) -> None:
    missing = str(tmp_path / "no.txt")
    with pytest.raises(AnsibleFilterError, match=f"lock: {missing} is not a file: correct"):
        tag(context, lock=missing)


@pytest.mark.parametrize(
    "change",
    [{"suite": "forky"}, {"packages": ["curl", "git"]}, {"registry_image": "d@sha256:2"}],
    ids=str,
)
def test_a_changed_recipe_renames_the_base_and_all_that_stands_on_it(
    change: dict[str, object], context: Path
) -> None:
    build = {"context": str(context)}
    before = named("bootstrap", RECIPE, web=build)["bootstrap"]
    assert before["base"].startswith("local/mlops/base:bootstrap-")
    turned = dict(reversed(RECIPE.items()))
    assert named("bootstrap", turned, web=build)["bootstrap"] == before
    after = named("bootstrap", {**RECIPE, **change}, web=build)["bootstrap"]
    assert after["base"] != before["base"]
    assert after["images"] != before["images"]


def test_what_stands_on_bases_of_two_sources_never_shares_a_name(context: Path) -> None:
    found = named("auto", RECIPE, web={"context": str(context)})
    assert list(found) == ["registry", "bootstrap"]
    registry, bootstrap = found.values()
    assert registry["base"].startswith("local/mlops/base:registry-")
    assert bootstrap["base"].startswith("local/mlops/base:bootstrap-")
    assert registry["images"]["web"] != bootstrap["images"]["web"]


def test_auto_and_a_source_by_its_name_give_the_same_names(context: Path) -> None:
    auto = named("auto", RECIPE, web={"context": str(context)})
    for source in ("registry", "bootstrap"):
        assert named(source, RECIPE, web={"context": str(context)})[source] == auto[source]


@pytest.mark.parametrize("source", ["registry", "bootstrap"])
@pytest.mark.parametrize("kind", ["base", "web"])
def test_auto_takes_the_source_of_the_images_that_are_there(
    kind: str, source: str, context: Path
) -> None:
    auto = named("auto", RECIPE, web={"context": str(context)})
    there = {"base": auto[source]["base"], **auto[source]["images"]}[kind]
    assert images.candidates(auto, [there, "other:1"]) == {source: auto[source]}


def test_auto_leaves_both_sources_open_where_no_image_is(context: Path) -> None:
    auto = named("auto", RECIPE, web={"context": str(context)})
    assert images.candidates(auto, ["other:1"]) == auto


def test_a_registry_that_is_asked_for_is_not_satisfied_by_a_bootstrapped_image(
    context: Path,
) -> None:
    bootstrap = named("bootstrap", RECIPE, web={"context": str(context)})["bootstrap"]
    there = [bootstrap["base"], *bootstrap["images"].values()]
    registry = named("registry", RECIPE, web={"context": str(context)})
    (chosen,) = images.candidates(registry, there).values()
    assert not {chosen["base"], *chosen["images"].values()} & set(there)
