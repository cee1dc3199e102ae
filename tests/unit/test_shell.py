"""What make starts knows nothing of the shell that it should not, and data may have any name."""

from __future__ import annotations

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROOT = Path(__file__).parents[2]
# in place of Ansible: what it was started with
PROGRAM = f"""#!{sys.executable} -I
import json, os, sys
with open("said.json", "w") as output:
    json.dump({{"words": sys.argv[1:], "environment": dict(os.environ)}}, output)
"""
OTHERS = {
    "ANSIBLE_COLLECTIONS_PATH": "/other",
    "ANSIBLE_ROLES_PATH": "/other",
    "ANSIBLE_STRATEGY": "free",
    "AWS_SESSION_TOKEN": "other",
    "CDPATH": "/",
    "COMPOSE_FILE": "/other.yaml",
    "COMPOSE_PROJECT_NAME": "other",
    "DOCKER_CONTEXT": "other",
    "DOCKER_DEFAULT_PLATFORM": "linux/other",
    "DOCKER_HOST": "tcp://127.0.0.1:9",
    "DOCKER_TLS_VERIFY": "1",
    "GIT_DIR": "/other/.git",
    "GREP_OPTIONS": "--color=always",
    "LC_CTYPE": "sv_SE.UTF-8",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    "PIP_TARGET": "/other",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONPATH": "/other",
    "UV_PYTHON": "/other",
    "VIRTUAL_ENV": "/other",
}
NAMED = {
    "ANSIBLE_VAULT_PASSWORD_FILE": "/vault",
    "GOPROXY": "https://go.example",
    "HTTPS_PROXY": "http://proxy.example:3128",
    "PIP_INDEX_URL": "https://index.example/simple",
    "SSL_CERT_FILE": "/certificates",
    "UV_DEFAULT_INDEX": "https://index.example/simple",
}


class Loader(yaml.SafeLoader):
    """Reads what Ansible marks as never a template."""


Loader.add_constructor("!unsafe", lambda _loader, node: str(node.value))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout whose environment is there, with a stand-in for Ansible."""
    at = tmp_path / "a checkout"
    for name in ("requirements.txt", "roles/base_image/files/uv.txt", "inventory/local/hosts.yml"):
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).touch()
    shutil.copy(ROOT / "Makefile", at)
    (at / ".venv/bin").mkdir(parents=True)
    (at / ".venv/bin/python").symlink_to(sys.executable)
    for name in ("ansible", "ansible-playbook"):
        (at / ".venv/bin" / name).write_text(PROGRAM)
        (at / ".venv/bin" / name).chmod(0o755)
    for name in ("bin/uv", "run"):
        (at / ".venv" / name).touch()
    return at


def make(checkout: Path, *words: str, env: Mapping[str, str], target: str = "up") -> dict[str, Any]:
    """Run make as somebody who becomes root when asked; what it started Ansible with."""
    done = subprocess.run(
        ["make", target, "ARGS=-K", *words],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout.parent), **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, Any] = json.loads((checkout / "said.json").read_text())
    return said


def test_what_is_another_projects_is_cleared_and_what_is_named_is_kept(checkout: Path) -> None:
    odd = {"LC_ALL": "sv_SE.UTF-8", "MAKEFLAGS": "-j8"}
    seen = make(checkout, env={**OTHERS, **NAMED, **odd})["environment"]
    assert not OTHERS.keys() & seen.keys()
    assert {name: seen.get(name) for name in NAMED} == NAMED
    assert seen["LC_ALL"] == "C.UTF-8"
    assert seen["HOME"] == str(checkout.parent)


@pytest.mark.parametrize("target", ["up", "verify", "status", "logs", "prune", "destroy"])
def test_what_was_advised_to_become_root_reaches_ansible(target: str, checkout: Path) -> None:
    if target == "verify":
        (checkout / ".venv/bin/python").unlink()
        (checkout / ".venv/bin/python").write_text(PROGRAM)
        (checkout / ".venv/bin/python").chmod(0o755)
    confirmed = ["CONFIRM=yes"] if target in ("prune", "destroy") else []
    assert "-K" in make(checkout, *confirmed, env={}, target=target)["words"]


@pytest.mark.parametrize("target", ["up", "check", "env", "status"])
def test_a_project_that_is_named_reaches_ansible(target: str, checkout: Path) -> None:
    words = make(checkout, "PROJECT=churn", env={}, target=target)["words"]
    assert '{"dvc_runner_project": "churn"}' in words


def test_what_another_make_was_told_is_not_judged(checkout: Path) -> None:
    outer = checkout.parent / "Makefile"
    outer.write_text(f"deploy:\n\t$(MAKE) -C '{checkout}' up ARGS=-K\n")
    subprocess.run(["make", "deploy", "STAGE=prod"], cwd=outer.parent, check=True)
    assert "site.yml" in json.loads((checkout / "said.json").read_text())["words"]


def test_an_inventory_that_make_new_wrote_stays_and_is_named_when_its_platform_is_gone(
    checkout: Path,
) -> None:
    (checkout / "inventory/local/group_vars/all/0-other").mkdir(parents=True)
    words = ["make", "destroy", "ARGS=-K", "CONFIRM=yes"]
    done = subprocess.run(words, cwd=checkout, capture_output=True, text=True, check=True)
    assert "inventory/local stays: `make up SYSTEM=local` brings its platform up" in done.stdout


@pytest.mark.parametrize("target", ["status", "logs"])
def test_a_platform_that_no_inventory_names_is_asked_for_too(target: str, checkout: Path) -> None:
    (checkout / ".venv/bin/ansible-playbook").write_text("#!/bin/sh\n")  # what status asks next
    words = make(checkout, env={}, target=target)["words"]
    command = words[words.index("-a") + 1]
    said = Templar(DataLoader(), {}).template(trust_as_template(command))
    assert "--project-name mlops " in said


@pytest.mark.parametrize("home", ["/proc/none", ""])
def test_where_no_home_can_be_written_the_checkout_has_one(home: str, checkout: Path) -> None:
    seen = make(checkout, env={"HOME": home})["environment"]
    assert seen["HOME"] == str(checkout / ".cache/home")
    assert Path(seen["HOME"]).is_dir()


@pytest.mark.parametrize(
    "name",
    [
        "winequality-red (1).csv",
        'it\'s "quoted".csv',
        "cost $HOME $(x) ${y}.csv",
        "[x] {{ 1 + 1 }} #é, a=b.csv",
        "back\\slash.csv",
        "-e.csv",
    ],
)
def test_a_data_file_of_any_name_is_named_by_its_absolute_path(name: str, checkout: Path) -> None:
    (checkout.parent / name).touch()
    words = make(checkout, f"DATA=../{name}", env={})["words"]
    given = yaml.load(words[words.index("-e") + 1], Loader=Loader)  # noqa: S506 - a safe loader
    assert given == {"dvc_runner_data": str(checkout.parent / name)}


@pytest.mark.parametrize("name", ["synthetic", "https://data.example/a b.csv?c=$d&e"])
def test_what_is_no_file_is_handed_on_as_it_is(name: str, checkout: Path) -> None:
    words = make(checkout, f"DATA={name}", env={})["words"]
    given = yaml.load(words[words.index("-e") + 1], Loader=Loader)  # noqa: S506 - a safe loader
    assert given == {"dvc_runner_data": name}


def test_the_collections_of_a_home_are_no_ones(tmp_path: Path) -> None:
    place = tmp_path / ".ansible/collections/ansible_collections/community/docker/plugins/modules"
    place.mkdir(parents=True)
    (place / "docker_compose_v2.py").write_text('DOCUMENTATION = "module: docker_compose_v2"\n')
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-doc", "-F", "community.docker"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "docker_compose_v2" in done.stdout
    assert str(tmp_path) not in done.stdout


def test_parameters_of_one_run_and_of_a_grid_reach_ansible_as_lists(checkout: Path) -> None:
    given = ("SET=train.lr=0.1 conf.json:a=b c", "GRID=lr=0.1,0.01 n=range(3,6)")
    words = make(checkout, *given, env={"SET": "other"}, target="pipeline")["words"]
    found = [json.loads(word) for word in words if word.startswith('{"dvc_runner_')]
    assert found == [
        {"dvc_runner_set": ["train.lr=0.1", "conf.json:a=b", "c"]},
        {"dvc_runner_grid": ["lr=0.1,0.01", "n=range(3,6)"]},
    ]
    plain = make(checkout, env={"SET": "other", "GRID": "a=1"}, target="pipeline")["words"]
    assert not [word for word in plain if "dvc_runner_" in word]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_shell_of_a_project_is_one_in_its_container(terminal: bool, checkout: Path) -> None:
    (checkout / ".venv/bin/ansible").write_text(
        "#!/bin/sh\nprintf 'lab | SUCCESS => {\\n    \"changed\": false,\\n'\n"
        "for word; do case $word in msg=*) echo \"$word\" | sed 's/{{.*}}/staging/' ;; esac; done\n"
    )
    docker = checkout / "bin/docker"
    docker.parent.mkdir()
    docker.write_text('#!/bin/sh\necho "$@"\n')
    docker.chmod(0o755)
    primary, secondary = pty.openpty()
    done = subprocess.run(
        ["make", "-s", "shell", "PROJECT=churn", "ARGS=--failed"],
        cwd=checkout,
        env={"PATH": f"{docker.parent}:{os.environ['PATH']}", "HOME": str(checkout.parent)},
        stdin=secondary if terminal else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    for end in (primary, secondary):
        os.close(end)
    container = f"exec -i{'t' * terminal} staging-dvc-runner-churn dvc_runner shell --failed"
    assert done.stdout.strip().endswith(container), done.stdout + done.stderr


@pytest.mark.parametrize("target", ["shell", "reproduce"])
def test_what_a_verb_needs_to_know_is_asked_for_by_name(target: str, checkout: Path) -> None:
    done = subprocess.run(
        ["make", target], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"= is missing: make {target} PROJECT=" in done.stderr


def told(checkout: Path, *words: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What make says that ends well."""
    return subprocess.run(
        ["make", "-s", *words],
        cwd=checkout,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout.parent), **env},
        capture_output=True,
        text=True,
        check=True,
    )


EXPORTING = """#!/bin/sh
for word; do case $word in dvc_runner_env_file=*)
  echo "export MLFLOW_TRACKING_URI=$ADDRESS" >"${word#*=}" ;;
esac; done
"""


@pytest.mark.parametrize(
    ("word", "named"), [("SYSTEM=local", ""), ("INVENTORY=lab,", " INVENTORY=lab,")]
)
def test_exports_of_a_platform_that_does_not_answer_are_printed_and_that_is_said(
    word: str, named: str, checkout: Path
) -> None:
    (checkout / ".venv/bin/ansible-playbook").write_text(EXPORTING)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        done = told(checkout, "env", word, env={"ADDRESS": address})
        assert (done.stdout, done.stderr) == (f"export MLFLOW_TRACKING_URI={address}\n", "")
    done = told(checkout, "env", word, env={"ADDRESS": address})
    assert done.stdout == f"export MLFLOW_TRACKING_URI={address}\n"
    said = f"Nothing answers at {address}: `make up{named}` brings the platform up.\n"
    assert done.stderr == said


def test_an_address_that_a_shell_has_to_quote_is_asked_as_it_is(checkout: Path) -> None:
    (checkout / ".venv/bin/ansible-playbook").write_text(EXPORTING)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"'http://127.0.0.1:{server.getsockname()[1]}/mlflow;v=1'"
        assert told(checkout, "env", env={"ADDRESS": address}).stderr == ""


def test_a_platform_that_has_nothing_to_export_is_not_asked_for(checkout: Path) -> None:
    (checkout / ".venv/bin/ansible-playbook").write_text("#!/bin/sh\n")
    assert told(checkout, "env", env={}).stderr == ""


def test_a_home_that_the_list_of_accounts_has_need_not_be_there(checkout: Path) -> None:
    seen = make(checkout, env={}, target="env")["environment"]
    assert seen["ANSIBLE_REMOTE_TMP"] == f"{checkout.parent}/.ansible/tmp"


def test_after_a_rotation_it_is_said_what_clients_need(checkout: Path) -> None:
    hosts = checkout / "inventory/staging/hosts.yml"
    hosts.parent.mkdir()
    hosts.touch()
    said = told(checkout, "rotate", "SYSTEM=staging", "ARGS=-K", env={}).stdout
    assert 'eval "$(make -s env SYSTEM=staging)" gives the new' in said
    assert "ca.crt" in said
    assert told(checkout, "rotate", "SYSTEM=staging", "ARGS=-K --check", env={}).stdout == ""


def refused(checkout: Path, *words: str, **env: str) -> str:
    """What make says that does nothing."""
    known = {"PATH": os.environ["PATH"], "HOME": str(checkout.parent)}
    done = subprocess.run(
        ["make", *words, "ARGS=-K"],
        cwd=checkout,
        env=known | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert not (checkout / "said.json").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("verb", "word", "readers"),
    [
        ("timer", "DATA=wine.csv", "up check pipeline"),
        ("verify", "DATA=wine.csv", "up check pipeline"),
        ("up", "SET=train.lr=0.1", "pipeline"),
        ("up", "FORCE=yes", "pipeline"),
        ("up", "NAME=staging", "new"),
        ("up", "KEEP_DATA=yes", "destroy"),
        ("prune", "IMAGES=yes", "destroy"),
        ("destroy", "KEEP=10", "prune"),
        ("destroy", "OFF=yes", "timer"),
        ("diff", "RUN=3", "reproduce"),
        ("destroy", "PROJECT=churn", "up check pipeline verify save"),
        ("prune", "PROJECT=churn", "up check pipeline verify save"),
        ("rotate", "PROJECT=churn", "up check pipeline verify save"),
        ("logs", "PROJECT=churn", "up check pipeline verify save"),
        ("up", "CONFIRM=yes", "destroy prune"),
        ("docs", "ARGS=--check", "up check pipeline verify save"),
    ],
)
def test_a_word_that_the_verb_would_pass_over_is_refused_with_those_that_read_it(
    verb: str, word: str, readers: str, checkout: Path
) -> None:
    said = refused(checkout, verb, word)
    assert f"{word.partition('=')[0]}= says nothing to `make {verb}`" in said
    assert f"it is for {readers}" in said


@pytest.mark.parametrize(
    ("verb", "word", "meant"),
    [
        ("destroy", "SYTEM=full", "did you mean SYSTEM?"),
        ("status", "system=full", "did you mean SYSTEM?"),
        ("up", "PROJEKT=churn", "did you mean PROJECT?"),
        ("destroy", "KEEPDATA=yes", "did you mean KEEP_DATA?"),
        ("up", "GOPROXY=https://go.example", "a variable of the environment stands before `make`"),
    ],
)
def test_a_word_that_no_verb_reads_is_refused_with_the_one_that_was_meant(
    verb: str, word: str, meant: str, checkout: Path
) -> None:
    said = refused(checkout, verb, word, "CONFIRM=yes")
    assert f"{word.partition('=')[0]}= is a word that no verb reads, and nothing was done" in said
    assert meant in said


@pytest.mark.parametrize("by_shell", [True, False])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"SYSTEM": ""}, "SYSTEM= is empty"),
        ({"SYSTEM": " "}, "SYSTEM= is empty"),
        ({"SYSTEM": "."}, "inventory/. is a directory of several inventories"),
        ({"INVENTORY": ""}, "INVENTORY= is empty"),
        ({"INVENTORY": "inventory"}, "inventory is a directory of several inventories"),
        ({"SYSTEM": "local", "INVENTORY": "inventory/local"}, "both name an inventory"),
    ],
    ids=str,
)
def test_what_names_no_one_inventory_is_refused(
    given: dict[str, str], says: str, by_shell: bool, checkout: Path
) -> None:
    words = [] if by_shell else [f"{name}={value}" for name, value in given.items()]
    said = refused(checkout, "destroy", "CONFIRM=yes", *words, **(given if by_shell else {}))
    assert says in said
    assert "nothing was done" in said


@pytest.mark.parametrize("word", ["PROJECT", "SET", "GRID", "DATA"])
def test_an_unset_variable_of_a_script_is_no_word_left_out(word: str, checkout: Path) -> None:
    assert f"{word}= is empty, and nothing was done" in refused(checkout, "pipeline", f"{word}=")


@pytest.mark.parametrize("word", ["SYSTEM=local", "INVENTORY=inventory/local", "INVENTORY=lab,"])
def test_one_inventory_is_taken_however_it_is_named(word: str, checkout: Path) -> None:
    words = make(checkout, word, env={})["words"]
    assert words[words.index("-i") + 1] in ("inventory/local", "lab,")


def test_a_word_of_the_shell_is_no_word_of_the_command(checkout: Path) -> None:
    shell = {"DATA": "wine.csv", "KEEP_DATA": "maybe", "FORCE": "yes", "OFF": "yes"}
    assert "platform_timer_state=absent" not in make(checkout, env=shell, target="timer")["words"]
    assert "dvc_runner_force=true" not in make(checkout, env=shell, target="check")["words"]


@pytest.mark.parametrize(
    ("verb", "name"),
    [
        ("timer", "OFF"),
        ("pipeline", "FORCE"),
        ("destroy", "KEEP_DATA"),
        ("destroy", "IMAGES"),
        ("destroy", "CONFIRM"),
        ("prune", "CONFIRM"),
    ],
)
def test_what_is_neither_yes_nor_no_is_refused(verb: str, name: str, checkout: Path) -> None:
    assert f"{name}=maybe is neither yes nor no" in refused(checkout, verb, f"{name}=maybe")


@pytest.mark.parametrize(("said", "off"), [("yes", True), ("true", True), ("no", False)])
def test_off_is_yes_or_no(said: str, off: bool, checkout: Path) -> None:
    words = make(checkout, f"OFF={said}", env={}, target="timer")["words"]
    assert ("platform_timer_state=absent" in words) is off


@pytest.mark.parametrize(("said", "forced"), [("true", True), ("no", False), ("false", False)])
def test_force_is_yes_or_no(said: str, forced: bool, checkout: Path) -> None:
    words = make(checkout, f"FORCE={said}", env={}, target="pipeline")["words"]
    assert ("dvc_runner_force=true" in words) is forced


@pytest.mark.parametrize(("said", "kept"), [("yes", "yes"), ("true", "yes"), ("false", "")])
@pytest.mark.parametrize("by_shell", [True, False])
def test_data_is_kept_however_yes_is_said(
    said: str, kept: str, by_shell: bool, checkout: Path
) -> None:
    words, env = ([], {"KEEP_DATA": said}) if by_shell else ([f"KEEP_DATA={said}"], {})
    told = make(checkout, "CONFIRM=true", *words, env=env, target="destroy")
    assert told["environment"]["KEEP_DATA"] == kept
