"""Small projects of kinds that people have, run by the runner with DVC itself."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tests.unit.conftest import ROLES, load

from dvc_runner.git import RunnerError
from dvc_runner.outputs import Output
from dvc_runner.run import require_stored
from dvc_runner.settings import settings
from dvc_runner.workspace import remove_output

from .conftest import DVC, RUNNER, World, committed_to, git, new_world

pytestmark = pytest.mark.processes


@pytest.fixture
def world(tmp_path: Path) -> World:
    return new_world(tmp_path)


def committed(world: World) -> set[str]:
    """What the last run's commit adds to the project or changes in it."""
    place = world.work / "project"
    return set(git(place, "diff", "--name-only", "runs~1", "runs").splitlines())


# --- what gets into git

TWO_STAGES = """\
stages:
  cached:
    cmd: echo made > made.txt; echo seen > undeclared.txt
    deps: [one.txt]
    outs: [made.txt]
  left_to_git:
    cmd: cat two.txt > metrics.json; cp two.txt kept-out.json
    deps: [two.txt]
    metrics: [{metrics.json: {cache: false}}, {kept-out.json: {cache: false}}]
"""


def test_an_output_never_gets_into_git_whatever_the_projects_gitignore_says(world: World) -> None:
    committed_to(
        world,
        dvc__yaml=TWO_STAGES,
        one__txt="1\n",
        two__txt='{"a": 1}\n',
        params__yaml="a: 1\n",
        __gitignore="kept-out.json\n",
    )
    world.run("--param", "params.yaml:a=2")
    assert committed(world) == {
        *(".dvc/.gitignore", ".dvc/config", ".gitignore"),
        *("dvc.lock", "metrics.json", "params.yaml"),
    }
    # the project's own .gitignore comes back, and the stage that DVC skips writes none
    committed_to(world, two__txt='{"a": 2}\n', __gitignore="kept-out.json\n# changed\n")
    said = world.run()
    assert "Stage 'cached' didn't change" in said
    place = world.work / "project"
    assert "made.txt" not in git(place, "ls-files").splitlines()
    assert committed(world) == {
        *(".dvc/.gitignore", ".dvc/config", ".gitignore", "dvc.lock", "metrics.json"),
    }
    assert git(place, "status", "--porcelain", "--untracked-files=no") == ""
    git(world.root, "clone", "--quiet", str(place), "clone")
    assert not (world.root / "clone/made.txt").exists()


def test_a_stage_whose_output_is_left_to_git_is_skipped_like_any_other(world: World) -> None:
    committed_to(world, dvc__yaml=TWO_STAGES, one__txt="1\n", two__txt="{}\n")
    world.run()
    committed_to(world, one__txt="2\n")
    said = world.run()
    assert "Running stage 'cached'" in said
    assert "Stage 'left_to_git' didn't change" in said


def test_an_output_that_becomes_gits_is_in_the_runs_commit(world: World) -> None:
    (world.project / "sub").mkdir()
    one = TWO_STAGES.replace("outs: [made.txt]", "outs: [sub/made.txt]")
    one = one.replace("> made.txt", "> sub/made.txt")
    committed_to(world, dvc__yaml=one, one__txt="1\n", two__txt="{}\n", **{"sub/keep": ""})
    world.run()
    assert "sub/.gitignore" in committed(world)
    committed_to(world, dvc__yaml=one.replace("[sub/made.txt]", "[{sub/made.txt: {cache: false}}]"))
    world.run()
    assert "sub/made.txt" in committed(world)
    assert "sub/.gitignore" not in committed(world)


def test_what_a_stage_writes_of_git_without_declaring_it_is_no_change_after_the_run(
    world: World, evidence: ModuleType
) -> None:
    committed_to(
        world,
        dvc__yaml=TWO_STAGES.replace("> undeclared.txt", "> report.txt"),
        one__txt="1\n",
        two__txt="{}\n",
        report__txt="none yet\n",
    )
    world.run()
    assert evidence.workspace()["changed"] == []
    (world.work / "project/one.txt").write_text("another\n")
    assert evidence.workspace()["changed"] == ["M one.txt"]


def test_after_a_first_run_that_failed_what_was_finished_stays_for_other_parameters(
    world: World,
) -> None:
    pipeline = """\
stages:
  first:
    cmd: cp one.txt made.txt
    deps: [one.txt]
    outs: [made.txt]
  second:
    cmd: grep -q 2 params.yaml && cp made.txt last.txt
    deps: [made.txt]
    params: [a]
    outs: [last.txt]
"""
    committed_to(world, dvc__yaml=pipeline, one__txt="1\n", params__yaml="a: 1\n")
    assert world.call("local", str(world.project)).returncode == 1
    said = world.run("--param", "params.yaml:a=2")
    assert "Stage 'first' didn't change" in said


# --- stages that the project has no more


def renamed(world: World, pipeline: str) -> None:
    """Have the project call its stage by another name."""
    committed_to(world, dvc__yaml=pipeline.replace("  first:", "  renamed:"))
    world.run()
    lock = (world.work / "project/dvc.lock").read_text()
    assert "first" not in lock
    assert "renamed" in lock


def test_a_file_outside_of_the_project_outlives_its_stage(world: World) -> None:
    outside = world.root / "outside.txt"
    pipeline = f"stages:\n  first:\n    cmd: test -e {outside} || echo 1 > {outside}\n"
    pipeline += f"    outs: [{{{outside}: {{cache: false}}}}]\n"
    committed_to(world, dvc__yaml=pipeline)
    world.run()
    committed_to(world, dvc__yaml="stages:\n  other:\n    cmd: echo 1 > o.txt\n    outs: [o.txt]\n")
    world.run()
    assert outside.read_text() == "1\n"


def test_what_a_stage_adds_to_outlives_its_name(world: World) -> None:
    pipeline = "stages:\n  first:\n    cmd: echo run >> history.txt\n"
    pipeline += "    outs: [{history.txt: {persist: true}}]\n"
    committed_to(world, dvc__yaml=pipeline)
    world.run()
    renamed(world, pipeline)
    assert (world.work / "project/history.txt").read_text() == "run\nrun\n"
    committed_to(world, dvc__yaml="stages:\n  other:\n    cmd: echo 1 > o.txt\n    outs: [o.txt]\n")
    world.run()
    assert (world.work / "project/history.txt").read_text() == "run\nrun\n"


def test_what_no_stage_declares_outlives_a_run_that_was_refused(world: World) -> None:
    pipeline = (
        "stages:\n  first:\n    cmd: echo run >> tracked.log; cp n.txt o.txt; test -s n.txt\n"
    )
    committed_to(world, dvc__yaml=f"{pipeline}    deps: [n.txt]\n    outs: [o.txt]\n", n__txt="1\n")
    world.run()
    committed_to(world, n__txt="")
    done = world.call("local", str(world.project))
    assert "The last good run stays in force" in done.stderr
    place = world.work / "project"
    assert (place / "tracked.log").read_text() == "run\nrun\n"
    assert (place / "o.txt").read_text() == "1\n"


MATRIX = """\
stages:
  each:
    matrix: {size: SIZES}
    cmd: mkdir -p out && echo ${item.size} > out/${item.size}.txt
    outs: ["out/${item.size}.txt"]
"""


def test_an_item_that_a_matrix_lost_leaves_the_lock_with_its_output(world: World) -> None:
    committed_to(world, dvc__yaml=MATRIX.replace("SIZES", "[1, 2]"))
    world.run()
    committed_to(world, dvc__yaml=MATRIX.replace("SIZES", "[2, 3]"))
    said = world.run()
    assert "Running stage 'each@2'" not in said
    place = world.work / "project"
    assert sorted(path.name for path in (place / "out").glob("*.txt")) == ["2.txt", "3.txt"]
    assert "each@1" not in (place / "dvc.lock").read_text()
    assert world.run().startswith("Nothing to do")


def test_a_file_that_the_project_took_from_a_dropped_stage_stays(world: World) -> None:
    committed_to(world, dvc__yaml=MATRIX.replace("SIZES", "[1, 2]"))
    world.run()
    (world.project / "out").mkdir()
    committed_to(world, dvc__yaml=MATRIX.replace("SIZES", "[2]"), **{"out/1__txt": "by hand\n"})
    world.run()
    assert (world.work / "project/out/1.txt").read_text() == "by hand\n"


def test_nothing_is_removed_by_way_of_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file.txt").write_text("1\n")
    project = tmp_path / "project"
    project.mkdir()
    git(project, "init", "--quiet")
    (project / "link").symlink_to(tmp_path / "outside")
    (project / "loop").symlink_to(tmp_path / "outside/file.txt")
    for name in ("link/file.txt", "../outside/file.txt", str(tmp_path / "outside/file.txt")):
        remove_output(project, name)
    remove_output(project, "loop")
    assert (tmp_path / "outside/file.txt").read_text() == "1\n"
    assert not (project / "loop").is_symlink()


# --- what DVC stores

KINDS = """\
stages:
  each:
    matrix: {size: [1, 2]}
    cmd: echo ${item.size} > ${item.size}.txt
    outs: ["${item.size}.txt"]
  kinds:
    cmd: mkdir -p many; for n in 1 2 3; do echo many$n > many/$n; done; date | tee own here > m
    outs: [many, {own: {remote: theirs}}, {here: {push: false}}]
    metrics: [{m: {cache: false}}]
  below:
    wdir: sub
    cmd: echo below > made.txt
    outs: [made.txt]
"""


def key_of(content: str) -> str:
    """Where a remote has what hashes so."""
    md5 = hashlib.md5(content.encode()).hexdigest()  # noqa: S324 - DVC's own
    return f"files/md5/{md5[:2]}/{md5[2:]}"


def kinds(world: World) -> None:
    """Run a project with every kind of output."""
    (world.project / "sub").mkdir()
    (world.project / ".dvc").mkdir()
    theirs = f"['remote \"theirs\"']\nurl = {world.root}/theirs\n"
    committed_to(world, dvc__yaml=KINDS, **{"sub/keep": "", "__dvc/config": theirs})
    world.run()


class Store:
    """What a verdict asks of S3, answered from a directory; counts the questions."""

    def __init__(self, remote: Path) -> None:
        self.remote, self.asked = remote, 0

    def read(self, key: str) -> bytes:
        self.asked += 1
        return (self.remote / key).read_bytes()

    def head_object(self, Bucket: str, Key: str) -> None:  # noqa: ARG002, N803 - boto3's names
        from botocore.exceptions import ClientError  # noqa: PLC0415

        if not (self.remote / Key).exists():
            raise ClientError({"Error": {"Code": "404"}}, "HeadObject")

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: ARG002, N803 - as above
        return {"Body": SimpleNamespace(iter_chunks=lambda _: [self.read(Key)])}


@pytest.fixture
def evidence(world: World, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the verdict reads, of this world."""
    found = load("dvc_runner/verify/evidence.py")
    monkeypatch.setattr(found, "WORKSPACE", world.work)
    monkeypatch.setattr(found, "PROJECT", world.work / "project")
    monkeypatch.setattr(found, "RUNNER", (sys.executable, str(ROLES / RUNNER)))
    monkeypatch.setattr(found, "made", found.made.__wrapped__)
    monkeypatch.setattr(found, "client_here", lambda: Store(world.remote))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for key, value in {**world.environment(), "RUNNER_REMOTE_URL": "s3://bucket"}.items():
        if key.startswith("RUNNER"):
            monkeypatch.setenv(key, value)
    return found


def test_the_verdict_judges_what_dvc_stores_and_no_more(world: World, evidence: ModuleType) -> None:
    kinds(world)
    assert world.run().startswith("Nothing to do")
    stored = evidence.stored_outputs()
    assert (stored["objects"], stored["wrong"]) == (8, [])
    assert len(world.objects()) == 8
    chain = evidence.workspace()
    assert sorted(chain["stored"]) == ["1.txt", "2.txt", "many", "own", "sub/made.txt"]
    assert (chain["done"], chain["changed"]) == (True, [])
    assert evidence.pull() == {"outputs": 4, "missing": [], "wrong": []}
    committed_to(world, dvc__yaml=KINDS.replace("[1, 2]", "[2]"))
    world.run()
    assert sorted(evidence.workspace()["stored"]) == ["2.txt", "many", "own", "sub/made.txt"]
    (world.remote / key_of("below\n")).write_text("spoiled")
    assert [row["path"] for row in evidence.stored_outputs()["wrong"]] == ["sub/made.txt"]


def test_a_file_of_a_directory_that_the_remote_lost_is_stored_again(
    world: World, evidence: ModuleType
) -> None:
    kinds(world)
    before = world.objects()
    text = "many1\n"
    lost = world.remote / key_of(text)
    lost.unlink()
    assert [row["missing"] for row in evidence.stored_outputs()["wrong"]] == ["404"]
    said = world.run()
    assert "Running stage" not in said
    assert world.objects() == before


def test_what_neither_the_remote_nor_the_cache_has_is_named_with_the_way_on(world: World) -> None:
    kinds(world)
    at = settings(world.environment())
    key = key_of("never made")
    gone = Output("dvc.yaml", "kinds", "many", True, True, True, True, False, "ab.dir", (key,))
    with pytest.raises(RunnerError) as refusal:
        require_stored(at, [gone])
    assert f"{world.remote} lacks {key} of many after `dvc push`" in str(refusal.value)
    assert "(`make pipeline FORCE=yes`)" in str(refusal.value)


def test_a_projects_secrets_are_variables_of_its_stages_and_of_nobody_else(world: World) -> None:
    secrets = world.root / "secrets"
    secrets.mkdir()
    (secrets / "env_API_KEY").write_text("a b$c\n")
    (secrets / "s3_credentials").write_text("not a variable\n")
    told = "stages: {tell: {cmd: 'printf %s \"$API_KEY\" > told.txt', outs: [told.txt]}}\n"
    committed_to(world, dvc__yaml=told)
    done = world.call("local", str(world.project), RUNNER_SECRETS=str(secrets))
    assert done.returncode == 0, done.stderr
    assert (world.work / "project/told.txt").read_text() == "a b$c"
    assert "a b$c" not in done.stdout


# --- several dvc.yaml


NESTED = """\
stages:
  make:
    cmd: mkdir -p out && cp in.txt out/made.txt
    deps: [in.txt]
    outs: [out/made.txt]
"""
JOIN = """\
stages:
  join:
    cmd: cat one/out/made.txt two/out/made.txt > joined.txt
    deps: [one/out/made.txt, two/out/made.txt]
    outs: [joined.txt]
"""


def nested(world: World, top: str = JOIN) -> None:
    """Have a project of two pipelines in directories, and `top` above them if any."""
    for name in ("one", "two"):
        (world.project / name).mkdir(exist_ok=True)
    files = {f"{name}/dvc__yaml": NESTED for name in ("one", "two")}
    files |= {f"{name}/in__txt": f"{name}\n" for name in ("one", "two")}
    committed_to(world, **files, **({"dvc__yaml": top} if top else {}))


@pytest.mark.parametrize("top", [JOIN, ""])
def test_every_pipeline_of_a_project_runs_and_its_results_are_saved(
    top: str, world: World, evidence: ModuleType
) -> None:
    nested(world, top)
    world.run()
    assert world.run().startswith("Nothing to do")
    place = world.work / "project"
    made = {"one/out/made.txt", "two/out/made.txt", *(["joined.txt"] if top else [])}
    assert {row["path"] for row in evidence.made() if row["stored"]} == made
    assert (evidence.workspace()["lock"], evidence.workspace()["changed"]) == (True, [])
    assert evidence.pull() == {"outputs": len(made), "missing": [], "wrong": []}
    names = {name for name in world.results() if not name.startswith("logs")}
    kept = {"one/dvc.lock", "two/dvc.lock", *(["dvc.lock"] if top else [])}
    assert names == made | kept
    assert kept <= committed(world)
    # one that changed runs alone, and what depends on it
    committed_to(world, **{"two/in__txt": "other\n"})
    said = world.run()
    assert "Running stage 'two/dvc.yaml:make'" in said
    assert "Running stage 'one/dvc.yaml:make'" not in said
    assert (place / "two/out/made.txt").read_text() == "other\n"


def test_the_pipeline_that_is_named_runs_alone(world: World) -> None:
    nested(world)
    world.run("--pipeline", "two/dvc.yaml")
    place = world.work / "project"
    assert (place / "two/out/made.txt").exists()
    assert not (place / "one/out/made.txt").exists()
    assert world.run("--pipeline", "two/dvc.yaml").startswith("Nothing to do")
    assert "Running stage 'join'" in world.run()
    done = world.call("local", str(world.project), "--pipeline", "tow/dvc.yaml")
    said = "has no pipeline tow/dvc.yaml (it has dvc.yaml, one/dvc.yaml, two/dvc.yaml): name one"
    assert said in done.stderr


def test_a_pipeline_that_leaves_the_project_takes_its_lock_and_outputs_along(world: World) -> None:
    nested(world, "")
    world.run()
    git(world.project, "rm", "--quiet", "-r", "two")
    committed_to(world, readme__md="one alone\n")
    world.run()
    place = world.work / "project"
    assert not (place / "two/out/made.txt").exists()
    assert not (place / "two/dvc.lock").exists()
    assert (place / "one/out/made.txt").exists()


# --- what a dvc.yaml may say

AS_WRITTEN = r"""
vars: [{more: 2}]
stages:
  each:
    foreach: [a, b]
    do:
      cmd: echo ${item} ${more} > ${item}.txt
      outs: ["${item}.txt"]
  bashed:
    desc: words for people
    meta: {owner: somebody}
    cmd:
      - bash -c 'set -o pipefail; words=(1 2); echo "\${#words[@]}" | tee bash.txt'
    params: [lr, {conf.toml: [t.x]}, {conf.py: [N, Train.lr]}, {conf.json: [j.k]}]
    outs: [bash.txt: {desc: two}]
  still:
    frozen: true
    cmd: echo moved > still.txt
    deps: [conf.py]
    outs: [still.txt: {cache: false}]
"""
ALWAYS = """
  again:
    always_changed: true
    cmd: echo once more; echo the same > same.txt
    outs: [same.txt]
"""


def as_written(world: World, yaml: str = AS_WRITTEN) -> None:
    """Commit a project that says what a dvc.yaml may, with links to the cache."""
    (world.project / ".dvc").mkdir(exist_ok=True)
    (world.project / ".dvc/config").write_text("[cache]\n    type = symlink\n    dir = /nowhere\n")
    committed_to(
        world,
        dvc__yaml=yaml,
        still__txt="kept\n",
        params__yaml="lr: 1\n",
        conf__toml="[t]\nx = 1\n",
        conf__py="N = 1\nclass Train:\n    lr = 0.1\n",
        conf__json='{"j": {"k": 1}}',
    )


def test_what_a_dvc_yaml_says_holds_here(world: World) -> None:
    as_written(world)
    said = world.run()
    place = world.work / "project"
    assert (place / "a.txt").read_text() == "a 2\n"
    assert (place / "a.txt").is_symlink()  # cache.type
    assert (place / "bash.txt").read_text() == "2\n"
    assert (place / "still.txt").read_text() == "kept\n"
    assert not Path("/nowhere").exists()
    assert len(world.objects()) == 3
    assert world.run().startswith("Nothing to do")
    for name, text in (
        ("conf.toml", "[t]\nx = 2\n"),
        ("conf.py", "N = 1\nclass Train:\n    lr = 0.2\n"),
        ("conf.json", '{"j": {"k": 2}}'),
    ):
        committed_to(world, **{name.replace(".", "__"): text})
        said = world.run()
        assert "Running stage 'bashed'" in said, name
        assert "Stage 'each@a' didn't change" in said


def test_an_output_lies_in_a_directory_that_git_ignores_as_in_a_checkout(world: World) -> None:
    stage = "stages: {a: {cmd: echo 1 > data/deep/a.txt, outs: [data/deep/a.txt]}}\n"
    committed_to(world, dvc__yaml=stage, __gitignore="/data\n")
    world.run()
    assert (world.work / "project/data/deep/a.txt").read_text() == "1\n"
    assert len(world.objects()) == 1


def test_a_stage_that_always_runs_does_so_at_every_request_and_no_other(world: World) -> None:
    as_written(world, AS_WRITTEN + ALWAYS)
    world.run()
    said = world.run()
    assert "once more" in said
    assert "Running stage 'bashed'" not in said
    # nothing came of it, so it is no run to compare with
    assert [run["number"] for run in json.loads(world.call("history").stdout)] == [1]


def test_experiments_that_are_queued_in_the_workspace_are_no_obstacle(world: World) -> None:
    as_written(world)
    world.run()
    place = world.work / "project"
    subprocess.run(
        [DVC, "exp", "run", "--queue", "--set-param", "lr=2"],
        cwd=place,
        check=True,
        capture_output=True,
        env=world.environment(
            GIT_AUTHOR_NAME="x",
            GIT_AUTHOR_EMAIL="x",
            GIT_COMMITTER_NAME="x",
            GIT_COMMITTER_EMAIL="x",
        ),
    )
    assert world.run().startswith("Nothing to do")
    world.run("--set", "lr=3")
    assert "lr: 3" in (place / "params.yaml").read_text()
