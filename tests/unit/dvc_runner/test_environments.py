"""A project's environment: where it is found, how it is locked, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvc_runner.environments.find import look
from dvc_runner.environments.locks import Environment, environment_of
from dvc_runner.environments.target import Target
from dvc_runner.environments.uv import said_by
from dvc_runner.git import RunnerError

from .conftest import git, state_of
from .wheels import own_package, served, wheel

PY = Target(python="3.13", machine="x86_64")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An index with a few packages, and no other in reach."""
    for name in [name for name in os.environ if name.startswith(("UV_", "PIP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_PYTHON", sys.executable)
    at = tmp_path / "index"
    wheel(at, "alpha", "1.0", "beta")
    wheel(at, "beta", "1.5")
    wheel(at, "beta", "2.0")
    with served(at) as address:
        monkeypatch.setenv("UV_DEFAULT_INDEX", address)
        yield at


@pytest.fixture
def project(tmp_path: Path) -> Path:
    at = tmp_path / "project"
    at.mkdir()
    return at


def written(project: Path, **files: str) -> None:
    """Write files, dots of their names written as `__`."""
    for name, content in files.items():
        (project / name.replace("__", ".")).write_text(content)


def found(project: Path, named: str = "", system: tuple[str, ...] = ()) -> Environment:
    return environment_of(project, project.parent / "cache", PY, named, system)


def lock_of(environment: Environment, name: str = "project-requirements.txt") -> str:
    return (environment.folder / name).read_text()


def versions(environment: Environment) -> list[str]:
    """The packages of a lock, each of which has a hash."""
    text = lock_of(environment).replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("--")]
    assert all("--hash=sha256:" in line for line in lines)
    return [line.split()[0] for line in lines]


def refusal(project: Path, named: str = "") -> str:
    with pytest.raises(RunnerError) as said:
        found(project, named)
    assert "\n" not in str(said.value)
    return str(said.value)


UV_LOCK = 'version = 1\nrequires-python = ">=3.11"\n'
POETRY_LOCK = '[metadata]\nlock-version = "2.0"\n'
STATED = '[project]\nname = "p"\nversion = "1"\n'


# --- where it is found


def test_the_most_trusted_file_of_a_project_says_what_it_needs(project: Path) -> None:
    least_first = {
        "environment.yml": "dependencies: [numpy]\n",
        "pyproject.toml": STATED,
        "requirements.txt": "alpha\nbeta>1\n",
        "requirements-lock.txt": "alpha==1.0\nbeta==2.0\n",
        "requirements.lock.txt": "alpha==1.0 --hash=sha256:1\nbeta==2.0 --hash=sha256:2\n",
        "poetry.lock": POETRY_LOCK,
        "uv.lock": UV_LOCK,
    }
    for name, content in least_first.items():
        (project / name).write_text(content)
        assert look(project, PY).source == name


@pytest.mark.parametrize(
    ("other", "content"),
    [
        ("requirements-dev.txt", "alpha==1.0 --hash=sha256:1\nbeta==2.0 --hash=sha256:2\n"),
        ("requirements_app.txt", "beta==2.0\n"),
        ("requirements-lock.txt", "alpha==1.0 --hash=sha256:1\nbeta==1.5 --hash=sha256:2\n"),
    ],
)
def test_a_file_for_something_else_or_out_of_date_does_not_stand_in_for_requirements_txt(
    project: Path, other: str, content: str
) -> None:
    written(project, requirements__txt="alpha\nbeta>=2\n")
    (project / other).write_text(content)
    assert look(project, PY).source == "requirements.txt"


OF_GIT = f"c @ git+https://host/c@{'1' * 40}\n"
LOCKED = "alpha==1.0 --hash=sha256:1\nbeta==1.5 --hash=sha256:2\n"


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("beside", [True, False])
def test_the_same_project_in_another_checkout_has_the_same_image(
    project: Path, beside: bool
) -> None:
    other = project.with_name("other")
    texts = []
    for at in (project, other):
        at.mkdir(exist_ok=True)
        named = (at if beside else at.with_name(f"{at.name}-settings")) / "needs.txt"
        named.parent.mkdir(exist_ok=True)
        named.write_text("alpha\n")
        made = environment_of(at, at.with_name(f"cache-{at.name}"), PY, str(named))
        texts.append({name: Path(path).read_text() for name, path in made.files.items()})
    assert texts[0] == texts[1]
    assert str(project.parent) not in str(texts)


@pytest.mark.parametrize(
    ("asked", "lock", "stands_in"),
    [
        ("alpha\n", LOCKED, True),
        ("alpha\nc @ git+https://host/c@v2\n", LOCKED, False),
        ("alpha\nc @ git+https://host/c@v2\n", f"{LOCKED}c @ git+https://host/c@v1\n", False),
        (f"alpha\n{OF_GIT}", f"{LOCKED}{OF_GIT}", True),
        ("alpha[fast]\n", LOCKED, False),
        ("alpha[fast]\n", LOCKED.replace("alpha", "alpha[fast,more]"), True),
        ("alpha\n-c limits.txt\n", LOCKED, False),
        ("alpha\n-c limits.txt\n", LOCKED.replace("1.5", "2.0"), True),
    ],
)
def test_a_lock_stands_in_for_what_requirements_txt_says_now(
    project: Path, asked: str, lock: str, stands_in: bool
) -> None:
    limits = 'beta>=2\nalpha<1; python_version < "3.9"\n# of nothing that is installed\ngamma==1\n'
    written(project, requirements__txt=asked, limits__txt=limits)
    (project / "requirements-lock.txt").write_text(lock)
    assert (look(project, PY).source == "requirements-lock.txt") is stands_in


def test_what_setup_py_reads_from_a_folder_of_requirements_is_of_the_environment(
    project: Path,
) -> None:
    written(project, setup__py="")
    (project / "requirements").mkdir()
    (project / "requirements/base.txt").write_text("alpha\n")
    assert "requirements/base.txt" in look(project, PY).files


def test_files_that_only_set_tools_are_no_environment(project: Path) -> None:
    written(project, pyproject__toml="[tool.ruff]\n", setup__cfg="[flake8]\n")
    made = found(project)
    assert made.source == ""
    assert lock_of(made) == ""
    assert made.sentence == "It names no packages: Python 3.13 and its standard library."


@pytest.mark.usefixtures("index")
def test_a_file_that_is_named_is_taken_and_one_that_is_not_there_is_refused(project: Path) -> None:
    written(project, requirements__txt="nosuch\n", other__txt="beta<2\n")
    assert versions(found(project, "other.txt")) == ["beta==1.5"]
    outside = project.parent / "outside.txt"
    outside.write_text("beta\n")
    assert versions(found(project, str(outside))) == ["beta==2.0"]
    assert "requirements gone.txt is no file of" in refusal(project, "gone.txt")


@pytest.mark.usefixtures("index")
def test_requirements_in_the_one_folder_that_has_some_are_those_of_the_project(
    project: Path,
) -> None:
    for name, text in (("src", "-r more.txt\n"), ("tests", "nosuch\n")):
        (project / name).mkdir()
        (project / name / "requirements.txt").write_text(text)
    (project / "src/more.txt").write_text("alpha\n")
    made = found(project)
    assert made.source == "src/requirements.txt"
    assert versions(made) == ["alpha==1.0", "beta==2.0"]
    (project / "app").mkdir()
    (project / "app/requirements.txt").write_text("beta\n")
    assert found(project).source == ""
    written(project, requirements__txt="beta\n")
    assert found(project).source == "requirements.txt"


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("named", "pipeline", "packages"),
    [
        ("", "churn/dvc.yaml", ["beta==1.5"]),
        ("", "churn/deep/dvc.yaml", ["beta==1.5"]),
        ("churn/pyproject.toml", "", ["beta==1.5"]),
        ("", "other/dvc.yaml", ["alpha==1.0", "beta==2.0"]),
        ("requirements.txt", "churn/dvc.yaml", ["alpha==1.0", "beta==2.0"]),
    ],
)
def test_what_lies_beside_a_pipeline_that_is_named_comes_before_what_is_above_it(
    named: str, pipeline: str, packages: list[str], project: Path
) -> None:
    git(project, "init", "--quiet")
    own_package(project / "churn", ["beta<2"])
    (project / "other").mkdir()
    written(project, requirements__txt="alpha\n")
    made = environment_of(project, project.parent / "cache", PY, named, pipeline=pipeline)
    assert versions(made) == packages
    of_churn = packages == ["beta==1.5"]
    assert made.local == (("churn",) if of_churn else ())
    assert made.source == ("churn/pyproject.toml" if of_churn else "requirements.txt")


def test_a_name_that_only_stands_for_another_package_is_that_package(project: Path) -> None:
    written(project, requirements__txt="sklearn==0.0\nsklearn; python_version > '3'\nsklearn-x\n")
    asked = look(project, PY).requirements.packages
    assert asked == ["scikit-learn", "scikit-learn; python_version > '3'", "sklearn-x"]


def test_a_file_of_a_tool_that_is_not_read_is_named(project: Path) -> None:
    written(project, Pipfile="[packages]\n")
    assert "Pipfile of" in refusal(project)
    assert "requirements.txt" in refusal(project)


# --- locks


def test_what_is_not_locked_is_locked_once_and_then_costs_no_call(
    project: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(project, requirements__txt="# ours\nalpha  # and what it needs\n")
    first = found(project)
    assert (first.new, versions(first)) == (True, ["alpha==1.0", "beta==2.0"])
    wheel(index, "beta", "3.0")

    def called(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "run", called)
    second = found(project)
    assert (second.new, second.digest) == (False, first.digest)
    assert second.files == first.files


@pytest.mark.usefixtures("index")
def test_a_change_that_installs_nothing_else_is_the_same_environment(project: Path) -> None:
    written(project, requirements__txt="beta\n")
    first = found(project)
    written(project, requirements__txt="# why\nbeta>1\n")
    assert found(project).digest == first.digest
    written(project, requirements__txt="beta<2\n")
    assert found(project).digest != first.digest
    written(project, requirements__txt="beta\n")
    assert found(project, system=("libgomp1",)).digest != first.digest


@pytest.mark.usefixtures("index")
def test_requirements_include_others_and_are_held_by_constraints(project: Path) -> None:
    (project / "parts").mkdir()
    written(project, requirements__txt="-r parts/base.txt\n--constraint=limits.txt\n")
    written(project, limits__txt="beta<2\n")
    (project / "parts/base.txt").write_text("-r more.txt\n")
    (project / "parts/more.txt").write_text("alpha\npkg-resources==0.0.0\n")
    assert versions(found(project)) == ["alpha==1.0", "beta==1.5"]
    written(project, limits__txt="beta<3\n")
    assert versions(found(project)) == ["alpha==1.0", "beta==2.0"]


@pytest.mark.usefixtures("index")
def test_requirements_that_powershell_wrote_are_read(project: Path) -> None:
    (project / "requirements.txt").write_text("beta==1.5\r\n", encoding="utf-16")
    assert versions(found(project)) == ["beta==1.5"]


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize("offline", ["", "1"])
def test_a_lock_with_hashes_is_taken_as_it_is_where_no_index_answers(
    project: Path, monkeypatch: pytest.MonkeyPatch, offline: str
) -> None:
    if offline:
        monkeypatch.setenv("UV_OFFLINE", offline)
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    lock = f"gone==1.0 \\\n    --hash=sha256:{'0' * 64}\n"
    written(project, requirements__txt=lock)
    assert lock_of(found(project)) == lock


def test_a_lock_that_lacks_a_package_is_refused_with_uvs_words(project: Path, index: Path) -> None:
    digest = wheel(index, "alpha", "1.0", "beta")
    written(project, requirements__txt=f"alpha==1.0 --hash={digest}\n")
    said = refusal(project)
    assert said.startswith("requirements.txt can not be installed: ")
    assert "`beta`" in said


@pytest.mark.usefixtures("index")
def test_a_package_that_does_not_exist_is_refused_with_uvs_words(project: Path) -> None:
    written(project, requirements__txt="nosuch-package\n")
    said = refusal(project)
    assert said.startswith("requirements.txt can not be installed: ")
    assert "nosuch-package was not found" in said
    assert not list((project.parent / "cache/environments").iterdir())


def test_a_wheel_of_another_python_is_refused_with_uvs_words(project: Path, index: Path) -> None:
    wheel(index, "gamma", "1.0", tag="cp39-cp39-win_amd64")
    written(project, requirements__txt="gamma==1.0\n")
    assert "gamma==1.0 has no wheels with a matching" in refusal(project)


def test_an_address_with_a_password_is_not_shown() -> None:
    assert said_by("error: no answer from https://me:secret@host/x\n") == (
        "no answer from https://me:***@host/x"
    )


def test_where_packages_come_from_is_kept_for_the_image(project: Path, index: Path) -> None:
    written(project, requirements__txt=f"--find-links {index}\n--no-cache-dir\nbeta\n")
    assert lock_of(found(project)).startswith(f"--find-links {index}\nbeta==2.0 ")


def test_what_only_the_machine_has_that_froze_it_is_refused(project: Path) -> None:
    written(project, requirements__txt="numpy @ file:///croot/numpy_1/work\n")
    assert "pip list --format=freeze" in refusal(project)


def test_conda_s_own_list_of_packages_is_refused(project: Path) -> None:
    written(project, requirements__txt="# platform: win-64\nnumpy=1.17.4=py37h4320e6b_0\n")
    said = refusal(project)
    assert said.startswith("requirements.txt has 'numpy=1.17.4=py37h4320e6b_0', which is of conda")


@pytest.mark.usefixtures("index")
def test_a_line_that_is_no_requirement_is_said_of_the_file_that_has_it(project: Path) -> None:
    written(project, requirements__txt="beta >> 1\n")
    said = refusal(project)
    assert "Couldn't parse requirement in `requirements.txt`" in said
    assert "beta >> 1" in said


@pytest.mark.usefixtures("index")
def test_another_file_that_can_not_be_read_is_no_matter(project: Path) -> None:
    written(project, requirements__txt="beta\n", requirements_app__txt="-r gone.txt\n")
    assert versions(found(project)) == ["beta==2.0"]


def test_what_comes_from_git_is_kept_apart_by_its_commit(project: Path, index: Path) -> None:
    commit = "1" * 40
    line = f"clip @ git+https://host/clip.git@{commit}"
    digest = wheel(index, "beta", "2.0")
    written(project, requirements__txt=f"{line}\nbeta==2.0 --hash={digest}\n")
    made = found(project)
    assert versions(made) == ["beta==2.0"]
    assert lock_of(made, "git-requirements.txt") == f"{line}\n"


@pytest.mark.parametrize("name", ["R-base", "-y", "a", "libgomp1 curl", "x;rm"])
def test_a_system_package_is_a_name_of_debians(project: Path, name: str) -> None:
    with pytest.raises(RunnerError, match="system_packages names"):
        found(project, system=(name,))


def test_system_packages_are_listed_for_the_image(project: Path) -> None:
    made = found(project, system=("r-base", "libgomp1", "g++"))
    assert lock_of(made, "system-packages.txt") == "g++\nlibgomp1\nr-base\n"


def test_a_project_that_keeps_the_lock_that_was_made_has_the_same_environment(
    project: Path, index: Path
) -> None:
    own_package(project, ["alpha"])
    written(project, requirements__txt="-e .\nbeta[more]>=1\n")
    first = found(project)
    (project / "requirements-lock.txt").write_text(lock_of(first, "requirements-lock.txt"))
    wheel(index, "beta", "9.0")
    kept = found(project)
    assert kept.source == "requirements-lock.txt"
    assert (kept.digest, kept.local) == (first.digest, first.local)
    # there is nothing more to keep
    assert lock_of(kept, "requirements-lock.txt") == ""


@pytest.mark.usefixtures("index")
def test_a_mac_locks_for_linux_on_the_same_machine(project: Path) -> None:
    written(project, requirements__txt="beta ; platform_machine == 'aarch64'\n")
    made = environment_of(project, project.parent / "cache", Target("3.13", "arm64"))
    assert versions(made) == ["beta==2.0"]


# --- packages of the project itself


@pytest.mark.parametrize("line", ["-e .", "--editable=./", "."])
@pytest.mark.usefixtures("index")
def test_what_a_package_of_the_project_needs_is_locked_with_it(project: Path, line: str) -> None:
    own_package(project, ["alpha"])
    written(project, requirements__txt=f"{line}\nbeta<2\n")
    before = state_of(project)
    made = found(project)
    assert versions(made) == ["alpha==1.0", "beta==1.5"]
    assert made.local == (".",)
    assert made.sentence == "requirements.txt for Python 3.13, and the project itself."
    assert state_of(project) == before


@pytest.mark.usefixtures("index")
def test_packages_beside_the_project_are_named_from_it(project: Path) -> None:
    git(project.parent, "init", "--quiet")
    own_package(project.parent / "libs/own", ["beta"])
    written(project, requirements__txt="-e ../libs/own[all]\n")
    made = found(project)
    assert versions(made) == ["beta==2.0"]
    assert made.local == ("../libs/own",)


def test_what_builds_a_package_is_locked_apart(project: Path, index: Path) -> None:
    wheel(index, "hatchling", "1.0")
    wheel(index, "editables", "1.0")
    stated = STATED + 'dependencies = ["beta"]\n[build-system]\nrequires = ["hatchling"]\n'
    written(project, pyproject__toml=stated)
    made = found(project)
    assert versions(made) == ["beta==2.0"]
    tools = lock_of(made, "build-requirements.txt")
    # it asks for the other one only when it builds a package that stays where it is
    assert [line.split()[0] for line in tools.splitlines() if "==" in line] == [
        *("editables==1.0", "hatchling==1.0"),
    ]
    assert made.local == (".",)


def test_a_package_that_is_not_there_is_named(project: Path) -> None:
    written(project, requirements__txt="./lib\n")
    assert "lib is asked for as a package and is not in" in refusal(project)


@pytest.mark.usefixtures("index")
def test_a_project_that_says_no_way_to_build_it_is_not_installed(project: Path) -> None:
    written(project, pyproject__toml=f'{STATED}dependencies = ["beta"]\n')
    made = found(project)
    assert (versions(made), made.local) == (["beta==2.0"], ())


# --- uv, poetry and conda


def test_a_lock_of_uvs_is_exported_with_its_groups(project: Path, index: Path) -> None:
    stated = STATED + 'dependencies = ["alpha"]\n[dependency-groups]\ndev = ["gamma"]\n'
    stated += '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n'
    wheel(index, "gamma", "1.0")
    written(project, pyproject__toml=stated)
    subprocess.run(["uv", "lock", "--quiet"], cwd=project, check=True)
    wheel(index, "beta", "9.0")
    made = found(project)
    assert made.source == "uv.lock"
    address = f"--extra-index-url {os.environ['UV_DEFAULT_INDEX']}\n"
    assert lock_of(made).startswith(address)
    assert versions(made) == ["alpha==1.0", "beta==2.0", "gamma==1.0"]
    assert made.local == (".",)


POETRY = """\
[tool.poetry]
name = "p"
version = "1"
package-mode = false
[tool.poetry.dependencies]
python = "^3.9"
Alpha = {version = "^1.0", extras = ["more"]}
beta = [{version = "<2", python = "<3.10"}, {version = "^2.0", python = ">=3.10"}]
never = {version = "*", markers = "sys_platform == 'win32'"}
unasked = {version = "1.0", optional = true}
[tool.poetry.group.dev.dependencies]
gamma = "~1.2"
[tool.poetry.group.docs]
optional = true
[tool.poetry.group.docs.dependencies]
delta = "*"
"""


def poetry_lock(hashes: dict[str, str], old: bool) -> str:
    """Write a lock of poetry's, in the format that keeps its files apart or the later one."""
    of = {
        "alpha": ("1.0", 'extra-of = {version = "*", optional = true}\ndeep = ">=1"\n'),
        "beta": ("2.0", ""),
        "deep": ("1.0", 'windows = {version = "*", markers = "sys_platform == \\"win32\\""}\n'),
        "extra-of": ("1.0", ""),
        "gamma": ("1.2.9", ""),
        "delta": ("1.0", ""),
    }
    text = '[[package]]\nname = "beta"\nversion = "1.5"\npython-versions = "<3.10"\nfiles = []\n'
    apart = "[metadata.files]\n"
    for name, (version, needs) in of.items():
        files = f'[{{file = "{name}.whl", hash = "{hashes[name]}"}}]'
        text += f'[[package]]\nname = "{name}"\nversion = "{version}"\npython-versions = ">=3.7"\n'
        text += "" if old else f"files = {files}\n"
        text += f"[package.dependencies]\n{needs}" if needs else ""
        text += '[package.extras]\nmore = ["extra-of (>=1)"]\n' if name == "alpha" else ""
        apart += f"{name} = {files}\n"
    return f'{text}[metadata]\nlock-version = "1.1"\n{apart if old else ""}'


@pytest.mark.parametrize("old", [True, False])
def test_a_lock_of_poetrys_needs_no_poetry(project: Path, index: Path, old: bool) -> None:
    hashes = {
        "alpha": wheel(index, "alpha", "1.0", "deep"),
        "beta": wheel(index, "beta", "2.0"),
        "deep": wheel(index, "deep", "1.0"),
        "extra-of": wheel(index, "extra_of", "1.0"),
        "gamma": wheel(index, "gamma", "1.2.9"),
        "delta": wheel(index, "delta", "1.0"),
    }
    written(project, pyproject__toml=POETRY, poetry__lock=poetry_lock(hashes, old))
    made = found(project)
    assert versions(made) == [
        *("alpha==1.0", "beta==2.0", "deep==1.0", "extra-of==1.0", "gamma==1.2.9"),
    ]
    assert made.source == "poetry.lock"


def test_a_lock_of_poetry_2_says_itself_where_a_package_is_for(project: Path, index: Path) -> None:
    stated = STATED + 'requires-python = ">=3.9"\ndependencies = ["beta (>=1,<3)"]\n'
    entry = '[[package]]\nname = "beta"\nversion = "{0}"\npython-versions = ">=3.7"\n'
    entry += "markers = 'python_version {1} \"3.10\"'\n"
    entry += 'files = [{{file = "b", hash = "{2}"}}]\n'
    lock = entry.format("1.5", "<", "sha256:5") + entry.format(
        "2.0", ">=", wheel(index, "beta", "2.0")
    )
    written(project, pyproject__toml=stated, poetry__lock=f"{lock}{POETRY_LOCK}")
    assert versions(found(project)) == ["beta==2.0"]


def test_of_two_versions_in_a_lock_of_poetrys_the_newer_one_that_fits_is_taken(
    project: Path, index: Path
) -> None:
    stated = STATED + 'requires-python = ">=3.9"\ndependencies = ["beta"]\n'
    entry = '[[package]]\nname = "beta"\nversion = "{0}"\npython-versions = "{1}"\n'
    # of a group that has no marker of its own it is always; a marker that no one can read is none
    entry += 'groups = ["main", "dev"]\nmarkers = {{dev = "python_version < \'3.10\' and ()"}}\n'
    entry += 'files = [{{file = "b", hash = "{2}"}}]\n'
    lock = entry.format("1.5", ">=3.10", "sha256:5")
    lock += entry.format("2.0", ">=3.11", wheel(index, "beta", "2.0"))
    lock += entry.format("9.0", ">=3.14", "sha256:9")
    written(project, pyproject__toml=stated, poetry__lock=f"{lock}{POETRY_LOCK}")
    assert versions(found(project)) == ["beta==2.0"]


def test_a_version_in_a_lock_of_poetrys_fits_all_who_ask_for_it(project: Path, index: Path) -> None:
    stated = STATED + 'dependencies = ["alpha", "beta"]\n'
    entry = '[[package]]\nname = "{0}"\nversion = "{1}"\npython-versions = ">=3.9"\n'
    entry += 'files = [{{file = "b", hash = "{2}"}}]\n'
    lock = entry.format("alpha", "1.0", wheel(index, "alpha", "1.0", "beta<2"))
    lock += '[package.dependencies]\nbeta = "<2"\n'
    lock += entry.format("beta", "1.5", wheel(index, "beta", "1.5"))
    lock += entry.format("beta", "2.0", "sha256:2")
    written(project, pyproject__toml=stated, poetry__lock=f"{lock}{POETRY_LOCK}")
    assert versions(found(project)) == ["alpha==1.0", "beta==1.5"]


def test_a_lock_of_poetrys_that_does_not_fit_the_project_is_refused(project: Path) -> None:
    stated = '[tool.poetry]\n[tool.poetry.dependencies]\nbeta = "^3.0"\n'
    entry = '[[package]]\nname = "beta"\nversion = "2.0"\npython-versions = "*"\nfiles = []\n'
    written(project, pyproject__toml=stated, poetry__lock=f"{entry}{POETRY_LOCK}")
    said = refusal(project)
    assert "beta ^3.0 is wanted" in said
    assert "has 2.0: run `poetry lock`" in said


def test_a_project_of_poetrys_without_a_lock_is_locked_by_uv(project: Path, index: Path) -> None:
    wheel(index, "gamma", "1.2.1")
    wheel(index, "gamma", "1.3.0")
    written(project, pyproject__toml=POETRY.replace("Alpha", "alpha").replace('"more"', ""))
    assert versions(found(project)) == ["alpha==1.0", "beta==2.0", "gamma==1.2.1"]


def test_what_conda_and_pip_both_have_is_taken_of_a_conda_environment(
    project: Path, index: Path
) -> None:
    wheel(index, "numpy", "1.26.4")
    wheel(index, "numpy", "2.1.0")
    wheel(index, "torch", "2.0")
    text = "dependencies: [python=3.13, 'conda-forge::numpy=1.26', pytorch, pip, {pip: [beta<2]}]\n"
    written(project, environment__yml=text)
    assert versions(found(project)) == ["beta==1.5", "numpy==1.26.4", "torch==2.0"]


def test_what_conda_alone_has_is_refused_by_name(project: Path) -> None:
    written(project, environment__yml="dependencies: [numpy, r-base=4.1, cudatoolkit]\n")
    said = refusal(project)
    assert "asks conda for r-base, cudatoolkit, which" in said
    assert "system_packages" in said


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("uv.lock", UV_LOCK.replace(">=3.11", ">=3.9, <3.12"), ">=3.9, <3.12"),
        ("pyproject.toml", f'{STATED}requires-python = ">=3.14"\n', ">=3.14"),
        ("pyproject.toml", '[tool.poetry.dependencies]\npython = "~3.10"\n', ">=3.10,<3.11"),
        ("environment.yml", "dependencies: [python=3.8]\n", "==3.8.*"),
    ],
)
def test_an_environment_for_another_python_says_which_is_there(
    project: Path, name: str, content: str, wanted: str
) -> None:
    written(project, pyproject__toml=STATED)
    if name == "environment.yml":
        (project / "pyproject.toml").unlink()
    (project / name).write_text(content)
    said = refusal(project)
    assert f"asks for Python {wanted} and the image has 3.13" in said


def test_a_file_that_is_not_readable_is_named(project: Path) -> None:
    written(project, pyproject__toml="[project\n")
    assert "pyproject.toml of" in refusal(project)
    (project / "pyproject.toml").unlink()
    written(project, environment__yml="a: [\n")
    assert "environment.yml is not readable" in refusal(project)


@pytest.mark.usefixtures("index")
def test_what_the_container_is_told_of_its_environment_is_among_its_files(project: Path) -> None:
    written(project, requirements__txt="beta\n")
    made = found(project)
    told = json.loads(Path(made.files["environment.json"]).read_text())
    assert told == {
        "digest": made.digest,
        "local": [],
        "python": "3.13",
        "source": "requirements.txt",
    }
