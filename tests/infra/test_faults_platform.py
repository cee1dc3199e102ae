"""What may happen to a running platform and to its data, and that the next run makes it good.

One platform for all of these, of a project that belongs to an ordinary user. Each test leaves the
platform running; the ones about removing it come last.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from tests.infra.conftest import BIN, data
from tests.infra.faults_support import (
    DESTROY,
    LABEL,
    PATIENCE,
    Gate,
    Platform,
    Variables,
    commit_all,
    copy_project,
    docker,
    environment,
    free_ports,
    gate,
    gateway,
    git,
    image_of,
    wait_for,
)

NAME = "mlops-faults"
OWNER = 1234
PIPELINE = "playbooks/pipeline.yml"
SAMPLE = "config.yaml:data_ingestion.fallback"
BIG = 200_000_000
GREETING = "/workspace/project/greeting.txt"


@dataclass
class Stack(Platform):
    """The platform, and what its own servers know."""

    written: dict[str, int] = field(default_factory=dict)

    def published(self, port: str) -> str:
        """Return the address of a published port."""
        return f"127.0.0.1:{self.variables[port]}"

    def secret(self, name: str) -> str:
        """Return a generated secret."""
        return (self.secrets / name).read_text().strip()

    def s3(self, access_key: str = "", secret_key: str = "") -> Minio:
        """Return a client of MinIO, by default of its root user."""
        return Minio(
            endpoint=self.published("minio_api_port"),
            access_key=access_key or self.secret("minio_root_user"),
            secret_key=secret_key or self.secret("minio_root_password"),
            secure=False,
            region="us-east-1",
        )

    def objects(self) -> dict[str, int]:
        """Map the md5 of every object in the DVC remote to its size."""
        found = self.s3().list_objects(bucket_name="dvc-storage", recursive=True)
        return {
            "".join(str(each.object_name).split("/")[-2:]): int(each.size or 0) for each in found
        }

    def tracking(self, call: str, **query: object) -> Any:  # noqa: ANN401 - JSON of any shape
        """Ask MLflow."""
        request = urllib.request.Request(
            f"http://{self.published('mlflow_port')}/api/2.0/mlflow/{call}",
            json.dumps(query).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:  # noqa: S310 - the platform's own
            return json.load(reply)

    def tracked(self) -> set[str]:
        """List the ids of the runs that ended well."""
        experiments = self.tracking("experiments/search", max_results=100)["experiments"]
        ids = [each["experiment_id"] for each in experiments]
        runs = self.tracking("runs/search", experiment_ids=ids, max_results=100).get("runs", [])
        return {each["info"]["run_id"] for each in runs if each["info"]["status"] == "FINISHED"}

    def in_runner(self, *words: str, project: str = "wine") -> str:
        """Run a command in a project's runner."""
        return docker("exec", self.container(f"dvc-runner-{project}"), *words)

    def lock(self, project: str = "wine") -> dict[str, str]:
        """Map every output in the dvc.lock of a project's runner to its md5."""
        return outputs(self.in_runner("cat", "/workspace/project/dvc.lock", project=project))

    def healthy(self, service: str) -> bool:
        """Tell whether a container is healthy."""
        form = "{{.State.Health.Status}}"
        return docker("inspect", "--format", form, self.container(service)) == "healthy"


def outputs(lock: str) -> dict[str, str]:
    """Map every output in a dvc.lock to its md5."""
    stages = yaml.safe_load(lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


def times_of(checkout: Path) -> dict[str, int]:
    """Map every file that git tracks to when it was last written."""
    names = git("ls-files", at=checkout).splitlines()
    return {name: (checkout / name).stat().st_mtime_ns for name in names}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The platform after its first run."""
    home = tmp_path_factory.mktemp("platform")
    it = Stack(
        copy_project(home / "project", owner=OWNER),
        {
            "platform_name": NAME,
            "dvc_runner_cache": str(home / "snapshots"),
            "dvc_runner_data": data(),
            **free_ports(),
        },
    )
    try:
        it.written = times_of(it.checkout)
        it.up()
        yield it
    finally:
        it.close()


def trees(number: int) -> Variables:
    """Return a parameter that makes the last two stages run."""
    return {"dvc_runner_params": {SAMPLE: "synthetic", "params.yaml:model.n_estimators": number}}


# --- the user's own tree -------------------------------------------------------------------------


def test_the_runner_is_the_owner_of_the_project(stack: Stack) -> None:
    assert stack.in_runner("id", "-u").strip() == str(OWNER)


def test_the_runner_is_never_root_even_where_root_owns_the_project(tmp_path: Path) -> None:
    checkout = copy_project(tmp_path / "project")
    shown = subprocess.run(
        [
            *(str(BIN / "ansible"), "-i", "inventory/local", "dvc_runner"),
            *("-m", "ansible.builtin.debug", "-a", "var=dvc_runner_user"),
        ],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "10001:10001" in shown.stdout


def test_a_run_leaves_the_users_checkout_as_it_was(stack: Stack) -> None:
    assert git("status", "--porcelain", at=stack.checkout) == ""
    assert times_of(stack.checkout) == stack.written
    assert "model_evaluation" in stack.in_runner("cat", "/workspace/project/dvc.lock")


def test_a_run_with_nothing_to_do_judges_nothing_anew(stack: Stack) -> None:
    stack.up()
    again = stack.up()
    assert again.changed == 0
    again.assert_says("Nothing changed since the last verdict")


def test_saved_results_belong_to_the_owner_of_the_project(stack: Stack) -> None:
    lock = stack.checkout / "dvc.lock"
    try:
        outcome = stack.play(playbook="playbooks/save.yml")
        assert (outcome.code, outcome.changed) == (0, 1), outcome.text
        saved = [lock, *(stack.checkout / name for name in stack.lock())]
        for path in saved:
            assert (path.stat().st_uid, path.stat().st_gid) == (OWNER, OWNER), path
            assert path.parent.stat().st_uid == OWNER
        assert outputs(lock.read_text()) == stack.lock()
        assert stack.play(playbook="playbooks/save.yml").changed == 0
    finally:
        lock.unlink(missing_ok=True)


def test_a_refused_file_leaves_the_last_good_run_in_force_and_make_up_goes_on_with_it(
    stack: Stack, tmp_path: Path
) -> None:
    (tmp_path / "bad.csv").write_text("no;wine\n1;2\n")
    before = stack.lock()
    refused = stack.play(given={"dvc_runner_data": str(tmp_path / "bad.csv")})
    assert refused.code != 0
    refused.assert_says(
        "breaks schema.yaml in",
        "The last good run stays in force: data",
        "`make up` without DATA goes on",
    )
    assert stack.lock() == before
    # the inventory without -e: what was given before the refused file
    assert stack.up(given={"dvc_runner_data": ""}).changed == 0


def test_the_same_data_gives_the_same_hashes_in_the_container_and_without_one(
    stack: Stack, tmp_path: Path
) -> None:
    given = data()
    done = subprocess.run(
        [
            *(str(BIN / "python"), "roles/dvc_runner/files/image/dvc_runner", "local", "."),
            *("--data", given),
            *("--data-param", "source=config.yaml:data_ingestion.source"),
            *("--data-param", "sha256=config.yaml:data_ingestion.sha256"),
        ],
        cwd=stack.checkout,
        env={
            **environment(stack.checkout),
            "RUNNER_WORKSPACE": str(tmp_path / "workspace"),
            "RUNNER_REMOTE_URL": str(tmp_path / "remote"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    local = outputs((tmp_path / "workspace/project/dvc.lock").read_text())
    assert len(local) > 5
    assert local == stack.lock()


# --- containers ----------------------------------------------------------------------------------


def test_a_file_changed_by_hand_is_shown_and_put_back_and_no_container_is_touched(
    stack: Stack,
) -> None:
    path, alive = stack.directory / "compose.yaml", stack.lives()
    written = path.read_text()
    path.write_text(f"{written}# by hand\n")
    converge = ("--skip-tags", "pipeline,verify")
    shown = stack.up("--check", "--diff", *converge)
    shown.assert_says("-# by hand")
    assert path.read_text() != written
    assert stack.up(*converge).changed == 1
    assert path.read_text() == written
    assert stack.lives() == alive


@pytest.mark.parametrize(
    ("words", "service"),
    [(("rm", "--force"), "mlflow"), (("stop",), "minio")],
    ids=lambda it: it[0],
)
def test_a_container_removed_or_stopped_by_hand_comes_back_and_no_other_is_touched(
    stack: Stack, words: tuple[str, ...], service: str
) -> None:
    before = stack.lives()
    docker(*words, stack.container(service))
    stack.up("--skip-tags", "verify")
    after = stack.lives()
    assert {name for name in before if before[name] != after[name]} == {stack.container(service)}
    assert stack.healthy(service)


# --- secrets -------------------------------------------------------------------------------------


@contextmanager
def command_lines() -> Iterator[set[str]]:
    """Collect the command line of every process that is seen meanwhile."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.add(path.read_text(errors="replace").replace("\0", " "))
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_a_secret_is_rotated_by_changing_its_file_and_no_secret_is_seen_anywhere(
    stack: Stack,
) -> None:
    before, old = stack.lives(), stack.secret("dvc_runner_s3_secret_key")
    new = "R0tated" + old[::-1]
    (stack.secrets / "dvc_runner_s3_secret_key").write_text(new + "\n")
    with command_lines() as lines:
        outcome = stack.up("-vvv", "--diff", "--skip-tags", "verify")
    after = stack.lives()
    runner = stack.container("dvc-runner-wine")
    assert {name for name in before if before[name] != after[name]} == {runner}
    with pytest.raises(S3Error, match="does not match"):
        list(stack.s3("dvc", old).list_objects(bucket_name="dvc-storage"))
    assert stack.s3("dvc", new).bucket_exists(bucket_name="dvc-storage")

    places = {
        "output": outcome.text,
        "command lines": "\n".join(lines),
        "docker inspect": "".join(docker("inspect", name) for name in after),
        "container logs": "".join(logs_of(name) for name in after),
        "the workspace's git": all_objects(stack),
        "the project's git": git("log", "--all", "--patch", "--format=%B", at=stack.checkout),
    }
    secrets = {path.name: path.read_text().strip() for path in stack.secrets.iterdir()}
    assert len(secrets) >= 4
    assert "docker exec" in places["command lines"]
    found = [
        (name, place)
        for name, value in {**secrets, "the old one": old}.items()
        for place, text in places.items()
        if value in text
    ]
    assert found == []


def logs_of(container: str) -> str:
    """Return all that a container printed."""
    words = ["docker", "logs", container]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def all_objects(stack: Stack) -> str:
    """Return the content of every git object in the workspace."""
    words = ("git", "-C", "/workspace/project", "cat-file", "--batch-all-objects", "--batch")
    done = subprocess.run(
        ["docker", "exec", stack.container("dvc-runner-wine"), *words],
        capture_output=True,
        check=True,
    )
    assert done.stdout
    return done.stdout.decode(errors="replace")


# --- a client outside of the platform ------------------------------------------------------------

# what a shell has of another account and another server
FOREIGN = {
    **dict.fromkeys(("AWS_PROFILE", "AWS_DEFAULT_PROFILE"), "somebody-else"),
    **dict.fromkeys(("AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN"), "of-another-account"),
    **dict.fromkeys(("AWS_ENDPOINT_URL", "MLFLOW_S3_ENDPOINT_URL"), "http://127.0.0.1:9"),
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
    "AWS_REGION": "eu-north-1",
    "AWS_ROLE_ARN": "arn:aws:iam::1:role/other",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere",
    "MLFLOW_EXPERIMENT_ID": "99",
    "MLFLOW_REGISTRY_URI": "http://127.0.0.1:9",
    "MLFLOW_RUN_ID": "0123456789abcdef0123456789abcdef",
    "MLFLOW_TRACKING_PASSWORD": "of-another-server",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "/nowhere",
    "MLFLOW_TRACKING_TOKEN": "of-another-server",
    "MLFLOW_TRACKING_USERNAME": "somebody-else",
}
CONFIG = "[default]\nendpoint_url = http://127.0.0.1:9\ns3 =\n  addressing_style = virtual\n"
CLIENT = """
import pathlib, subprocess, sys
import boto3, mlflow
s3 = boto3.client("s3")
s3.put_object(Bucket="dvc-storage", Key="by-boto3", Body=b"bytes")
assert s3.get_object(Bucket="dvc-storage", Key="by-boto3")["Body"].read() == b"bytes"
s3.delete_object(Bucket="dvc-storage", Key="by-boto3")
mlflow.set_experiment("a client outside")
with mlflow.start_run():
    mlflow.log_param("key", "value")
for words in ("init --no-scm --quiet", "remote add --default far s3://dvc-storage/outside",
              "add --quiet data.txt", "push --quiet"):
    subprocess.run([sys.executable, "-m", "dvc", *words.split()], check=True)
pathlib.Path("data.txt").unlink()
subprocess.run(["rm", "-r", ".dvc/cache"], check=True)
subprocess.run([sys.executable, "-m", "dvc", "pull", "--quiet"], check=True)
print("all of", pathlib.Path("data.txt").read_text())
"""


@pytest.mark.parametrize("shell", ["bash", "dash", "zsh"])
def test_stock_clients_work_in_a_shell_that_has_another_accounts_settings(
    stack: Stack, shell: str, tmp_path: Path
) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    exports, config = tmp_path / "env", tmp_path / "config"
    written = stack.play(playbook="playbooks/env.yml", given={"dvc_runner_env_file": str(exports)})
    assert written.code == 0, written.text
    config.write_text(CONFIG)
    (tmp_path / "client.py").write_text(CLIENT)
    (tmp_path / "data.txt").write_text(f"it in {shell}")
    done = subprocess.run(
        [shell, "-c", f'set -u; eval "$(cat {exports})"; exec {sys.executable} client.py'],
        cwd=tmp_path,
        env={
            **environment(stack.checkout),
            **FOREIGN,
            **dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), str(config)),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"all of it in {shell}\n")


# --- runs that are stopped or lose a server ------------------------------------------------------


@contextmanager
def held(stack: Stack, name: str) -> Iterator[Gate]:
    """Have a stage of the project wait at a gate before it does its work."""
    path = stack.checkout / "dvc.yaml"
    text = path.read_text()
    project = yaml.safe_load(text)
    with gate() as door:
        ask = f"import urllib.request as web; web.urlopen('http://{door.address}')"
        # bounded: whatever happens to the test, the run ends
        wait = f'for _ in $(seq 600); do python -c "{ask}" 2>/dev/null && break; sleep 0.2; done'
        stage = project["stages"][name]
        stage["cmd"] = f"{wait}; {stage['cmd']}"
        path.write_text(yaml.safe_dump(project, sort_keys=False))
        try:
            yield door
        finally:
            path.write_text(text)


def test_a_run_that_nobody_watches_any_more_goes_on_and_the_next_one_has_nothing_left_to_do(
    stack: Stack,
) -> None:
    known = stack.tracked()
    with held(stack, "model_trainer") as door:
        first = stack.start(playbook=PIPELINE, given=trees(300))
        wait_for(door.asked.is_set, "the run to begin")
        second = stack.start(playbook=PIPELINE, given=trees(300))
        wait_for(lambda: "Waiting for the run that began at" in second.text, "the second to wait")
        first.kill_family()
        second.interrupt()
        door.opened.set()
        third = stack.play(playbook=PIPELINE, given=trees(300))
        assert third.code == 0, third.text
        assert len(stack.tracked() - known) == 1
        again = stack.play(playbook=PIPELINE, given=trees(300))
        assert (again.code, again.changed) == (0, 0), again.text


def test_parameters_set_back_are_tracked_as_a_run_of_their_own(stack: Stack) -> None:
    assert stack.play(playbook=PIPELINE, given=trees(300)).code == 0
    first = stack.lock()
    assert stack.play(playbook=PIPELINE, given=trees(40)).changed == 1
    known = stack.tracked()
    assert stack.lock() != first
    back = stack.play(playbook=PIPELINE, given=trees(300))
    assert back.changed == 1, back.text
    assert stack.lock() == first
    assert len(stack.tracked() - known) == 1


def test_mlflow_down_while_a_stage_runs_costs_that_stage_alone(stack: Stack) -> None:
    known = stack.tracked()
    with held(stack, "model_trainer") as door:
        running = stack.start(playbook=PIPELINE, given=trees(50))
        wait_for(door.asked.is_set, "the trainer to run")
        docker("kill", stack.container("mlflow"))
        door.opened.set()
        outcome = running.end()
        assert outcome.code != 0
        outcome.assert_says("MLflow at http://mlflow:5000", "Finished stages are kept")
        assert "Traceback" not in outcome.text

        healed = stack.up("--skip-tags", "verify", given=trees(50))
        assert "Running stage 'model_evaluation'" in healed.text
        assert healed.text.count("Running stage") == 1, healed.text
        assert len(stack.tracked() - known) == 1


def big_project(at: Path, name: str) -> Path:
    """Write a project of one stage whose output takes a while to push."""
    stage = {"cmd": f"head -c {BIG} /dev/urandom > {name}", "outs": [name]}
    at.mkdir()
    (at / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    os.chown(at, OWNER, OWNER)
    return at


def crash(stack: Stack) -> None:
    """Kill the server itself, as the kernel does when memory is short: the engine restarts it."""
    rows = docker("top", stack.container("minio"), "-eo", "pid,comm").splitlines()[1:]
    os.kill(next(int(row.split()[0]) for row in rows if row.split()[1] == "minio"), signal.SIGKILL)


def kill(stack: Stack) -> None:
    """Kill the container by hand: the engine leaves it down."""
    docker("kill", stack.container("minio"))


@pytest.mark.parametrize("end", [crash, kill], ids=["crash", "kill"])
def test_minio_killed_during_a_push_loses_nothing(
    stack: Stack,
    tmp_path: Path,
    end: Callable[[Stack], None],
) -> None:
    tmp_path.chmod(0o755)
    project = big_project(tmp_path / "big", f"{end.__name__}.bin")
    mine: Variables = {
        "dvc_runner_project": str(project),
        "dvc_runner_params": {},
        "dvc_runner_data": "",
    }
    stack.up("--skip-tags", "pipeline,verify", given=mine)
    volume = docker("volume", "inspect", "--format", "{{.Mountpoint}}", f"{NAME}_minio")
    running = stack.start(playbook=PIPELINE, given=mine)
    wait_for(
        lambda: half_uploaded(Path(volume)) or running.process.poll(), "the push to be halfway"
    )
    end(stack)
    outcome = running.end()
    if outcome.code:
        outcome.assert_says("The push to s3://dvc-storage failed three times", "run again")
        assert "Traceback" not in outcome.text

    healed = stack.up("--skip-tags", "verify", given=mine)
    assert "Running stage" not in healed.text
    assert stack.objects()[stack.lock("big")[f"{end.__name__}.bin"]] == BIG
    assert stack.play(playbook=PIPELINE, given=mine).changed == 0


def half_uploaded(volume: Path) -> bool:
    """Tell whether MinIO holds the beginning of a large object."""
    sizes = []
    # os.walk goes on where the server takes a directory away meanwhile
    for place, _, names in os.walk(volume / ".minio.sys"):
        for name in names if {"tmp", "multipart"} & {*Path(place).parts} else []:
            try:
                sizes.append((Path(place) / name).stat().st_size)
            except OSError:
                continue
    return sum(sizes) > BIG // 20


@contextmanager
def served(repositories: Path, address: str) -> Iterator[str]:
    """Serve git repositories where a container reaches them."""
    port = free_ports()["mlflow_port"]
    process = subprocess.Popen(
        [
            *("git", "-c", "safe.directory=*", "daemon", "--export-all", "--reuseaddr"),
            *(f"--listen={address}", f"--port={port}", f"--base-path={repositories}"),
        ],
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    url = f"git://{address}:{port}"
    try:
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=PATIENCE)


def test_a_project_given_as_a_git_address_is_cloned_run_and_followed(
    stack: Stack, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    stages = {"greet": {"cmd": "cp word.txt greeting.txt", "deps": ["word.txt"]}}
    stages["greet"]["outs"] = ["greeting.txt"]
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (project / "word.txt").write_text("hello")
    commit_all(project)
    with served(tmp_path, gateway(NAME)) as url:
        mine: Variables = {
            "dvc_runner_project": f"{url}/project",
            "dvc_runner_params": {},
            "dvc_runner_data": "",
        }
        early = stack.play(playbook=PIPELINE, given=mine)
        assert early.code != 0
        early.assert_says(f"{NAME}-dvc-runner-project is not there: `make up` with this project")
        stack.up("--skip-tags", "pipeline,verify", given=mine)
        outcome = stack.play(playbook=PIPELINE, given=mine)
        assert (outcome.code, outcome.changed) == (0, 1), outcome.text
        assert stack.in_runner("cat", GREETING, project="project") == "hello"
        assert stack.play(playbook=PIPELINE, given=mine).changed == 0
        (project / "word.txt").write_text("hello again")
        git("commit", "--quiet", "-a", "-m", "two", at=project)
        assert stack.play(playbook=PIPELINE, given=mine).changed == 1
        assert stack.in_runner("cat", GREETING, project="project") == "hello again"
        assert stack.lock("project").keys() >= {"greeting.txt"}


def test_a_project_of_somebody_else_runs_by_the_words_of_the_readme(
    stack: Stack, tmp_path: Path
) -> None:
    readme = (stack.checkout / "README.md").read_text()
    (named,) = re.findall(r"^make up PROJECT=(\S+)$", readme, re.MULTILINE)
    project = tmp_path / Path(named).name
    (project / "src").mkdir(parents=True)
    tmp_path.chmod(0o755)
    program = "import pathlib, six; pathlib.Path('told.txt').write_text(six.__version__)"
    stages = {
        "tell": {"cmd": "python src/tell.py", "deps": ["src/tell.py"], "outs": ["told.txt"]},
        "count": {
            "cmd": "wc -c < told.txt > count.json",
            "deps": ["told.txt"],
            "metrics": [{"count.json": {"cache": False}}],
        },
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (project / "src/tell.py").write_text(program)
    locked = (stack.checkout / "requirements-pipeline.txt").read_text()
    (block,) = re.findall(r"^six==.*(?:\n {4}.*)+", locked, re.MULTILINE)
    (project / "requirements.txt").write_text(f"{block}\n")
    commit_all(project)
    before = times_of(project)
    mine = ["-e", json.dumps({"dvc_runner_project": str(project), "dvc_runner_data": ""})]
    outcome = stack.up(*mine)
    outcome.assert_says("OK: all")
    told = stack.in_runner("cat", "/workspace/project/told.txt", project=project.name)
    assert block.startswith(f"six=={told}")
    assert stack.lock(project.name).keys() == {"told.txt", "count.json"}
    assert stack.healthy("dvc-runner-wine"), "another project beside it took its runner away"
    assert stack.up(*mine).changed == 0
    assert times_of(project) == before
    # without its name it is none of the platform's, and its data stays
    stack.up()
    assert stack.container(f"dvc-runner-{project.name}") not in stack.lives()
    docker("volume", "inspect", f"{NAME}_dvc-runner-{project.name}")


# --- lost data -----------------------------------------------------------------------------------


def test_a_lost_database_of_mlflow_and_an_emptied_bucket_are_made_good(stack: Stack) -> None:
    stack.up("--skip-tags", "verify")
    lost = stack.tracked()
    docker("rm", "--force", "--volumes", stack.container("mlflow"))
    docker("volume", "rm", f"{NAME}_mlflow")
    healed = stack.up("--skip-tags", "verify")
    healed.assert_says("the tracking server does not know run")
    assert len(stack.tracked()) == 1
    assert not stack.tracked() & lost

    wanted = set(stack.lock().values())
    s3 = stack.s3()
    every = s3.list_objects(bucket_name="dvc-storage", recursive=True, include_version=True)
    doomed = [DeleteObject(each.object_name or "", each.version_id) for each in every]
    assert not list(s3.remove_objects(bucket_name="dvc-storage", delete_object_list=doomed))
    assert stack.objects() == {}
    known = stack.tracked()
    outcome = stack.up()
    outcome.assert_says("the remote lacks outputs")
    assert "Running stage" not in outcome.text
    assert wanted <= set(stack.objects())
    assert stack.tracked() == known


# --- removing it ---------------------------------------------------------------------------------


@pytest.fixture
def neighbours() -> Iterator[list[tuple[str, ...]]]:
    """Things of the user and of a platform with a similar name; yields how to ask for each."""
    theirs = (f"{NAME}-2-minio", f"{NAME}-mine")

    def clear() -> None:
        docker("rm", "--force", "--volumes", *theirs, check=False)
        docker("network", "rm", f"{NAME}-2", check=False)
        docker("volume", "rm", "--force", f"{NAME}_mine", f"{NAME}-2_minio", check=False)

    clear()  # of a run that was killed
    docker("network", "create", f"{NAME}-2")
    docker("volume", "create", f"{NAME}_mine")
    docker("volume", "create", "--label", f"{LABEL}={NAME}-2", f"{NAME}-2_minio")
    label = ("--label", f"{LABEL}={NAME}-2")
    sleep = (image_of("base"), "sleep", "infinity")
    docker(
        "run", "--detach", "--init", "--name", theirs[0], *label, "--network", f"{NAME}-2", *sleep
    )
    docker("run", "--detach", "--init", "--name", theirs[1], *sleep)
    yield [
        *(("inspect", "--format", "{{.State.StartedAt}}", name) for name in theirs),
        ("network", "inspect", "--format", "{{.Id}}", f"{NAME}-2"),
        ("volume", "inspect", "--format", "{{.CreatedAt}}", f"{NAME}_mine"),
        ("volume", "inspect", "--format", "{{.CreatedAt}}", f"{NAME}-2_minio"),
    ]
    clear()


def test_destroy_refuses_unasked_and_removes_nothing(stack: Stack) -> None:
    before = stack.lives()
    outcome = stack.play(playbook=DESTROY)
    assert outcome.code != 0
    outcome.assert_says(
        f"This removes platform {NAME} from localhost with all its data",
        "make destroy CONFIRM=yes",
    )
    assert stack.lives() == before


def test_destroy_keeps_data_on_request_and_else_removes_the_platform_and_nothing_more(
    stack: Stack, neighbours: list[tuple[str, ...]]
) -> None:
    others = [docker(*ask) for ask in neighbours]
    runs, objects = stack.tracked(), stack.objects()
    secrets = {path.name: path.read_text() for path in stack.secrets.iterdir()}
    answers = {"CONFIRM": "yes", "KEEP_DATA": "yes"}
    outcome = stack.play(playbook=DESTROY, env=answers)
    assert outcome.code == 0, outcome.text
    assert stack.lives() == {}
    assert not stack.directory.exists()
    assert {path.name: path.read_text() for path in stack.secrets.iterdir()} == secrets

    again = stack.up("--skip-tags", "verify")
    assert "running the pipeline" not in again.text
    assert (stack.tracked(), stack.objects()) == (runs, objects)

    outcome = stack.play(playbook=DESTROY, env={"CONFIRM": "yes"})
    assert outcome.code == 0, outcome.text
    assert stack.left() == ""
    assert not stack.directory.exists()
    assert not stack.secrets.exists()
    twice = stack.play(playbook=DESTROY, env={"CONFIRM": "yes"})
    assert (twice.code, twice.changed) == (0, 0), twice.text
    assert [docker(*ask) for ask in neighbours] == others
