"""Notebooks as a user has them: in the browser, on the host, by the token."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from tests.infra.conftest import BIN, ROOT, Stack, stack
from tests.infra.faults_support import docker, wait_for
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

PORT = 1264


def documented() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What docs/operations.md says of jupyter.yml, and of one more user of the store."""
    text = (ROOT / "docs/operations.md").read_text().partition("## Notebooks\n")[2]
    blocks = [yaml.safe_load(each.partition("```")[0]) for each in text.split("```yaml\n")[1:3]]
    return blocks[0], blocks[1]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A platform with notebooks, as docs/operations.md says how, and without a pipeline."""
    at = tmp_path_factory.mktemp("mlops-jupyter")
    variables, user = documented()
    of_store = yaml.safe_load((ROOT / "inventory/local/group_vars/all/minio.yml").read_text())
    own = {
        **variables,
        "jupyter_port": str(PORT),
        "jupyter_notebooks": str(at / "notebooks"),
        "minio_buckets": [*of_store["minio_buckets"], {"name": "notebooks", "versioning": True}],
        "minio_users": [*of_store["minio_users"], *user],
    }
    made = stack("mlops-jupyter", 9260, at, **own)
    hosts = Path(made.inventory) / "hosts.yml"
    content = yaml.safe_load(hosts.read_text())
    groups = content["all"]["children"]
    content["all"]["children"] = {**groups, "jupyter": groups["minio"]}
    del content["all"]["children"]["dvc_runner"]
    hosts.write_text(yaml.safe_dump(content))
    for above in (at, at.parent):
        above.chmod(0o755)
    try:
        made.play("site.yml")
        yield made
    finally:
        made.destroy()


def notebooks(platform: Stack) -> Path:
    return Path(platform.variables["jupyter_notebooks"])


def token(platform: Stack) -> str:
    return (
        (Path(platform.inventory) / f".secrets/{platform.name}/jupyter_token").read_text().strip()
    )


def ask(platform: Stack, method: str, path: str, **words: Any) -> requests.Response:  # noqa: ANN401 - requests' own
    """Ask the server as a program does that knows the token."""
    key = {"Authorization": f"token {token(platform)}"}
    address = f"http://127.0.0.1:{PORT}/{path}"
    return requests.request(method, address, headers=key, timeout=60, **words)


async def _run(kernel: str, code: str, key: str) -> tuple[str, str]:
    address = f"ws://127.0.0.1:{PORT}/api/kernels/{kernel}/channels"
    door = await websocket_connect(HTTPRequest(address, headers={"Authorization": f"token {key}"}))
    try:
        return await _answer(door, code)
    finally:
        door.close()
        while await door.read_message() is not None:
            pass


async def _answer(door: WebSocketClientConnection, code: str) -> tuple[str, str]:
    header = {
        "msg_id": uuid.uuid4().hex,
        "session": uuid.uuid4().hex,
        "username": "",
        "date": "",
        "msg_type": "execute_request",
        "version": "5.3",
    }
    asked = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
    sent = {"header": header, "parent_header": {}, "metadata": {}, "channel": "shell"}
    await door.write_message(json.dumps({**sent, "content": asked}))
    said, reply, idle = "", None, False
    # the reply and what a cell prints come by two ways, in any order
    while not reply or not idle:
        text = await asyncio.wait_for(door.read_message(), 120)
        assert text is not None, f"the connection ended; so far: {said}"
        message = json.loads(text)
        kind, content = message["msg_type"], message["content"]
        if kind == "status" and content["execution_state"] == "restarting":
            return "died", said
        if message["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        if kind == "stream":
            said += content["text"]
        elif kind == "execute_reply":
            reply = content
        elif kind == "status":
            idle = content["execution_state"] == "idle"
    failed = f"{reply.get('ename')}: {reply.get('evalue')}"
    return reply["status"], said + (failed if reply["status"] == "error" else "")


def cell(platform: Stack, code: str) -> tuple[str, str]:
    """Run a cell as the browser does, in a kernel of its own; its status, and what it says."""
    kernel = ask(platform, "POST", "api/kernels", json={"name": "python3"}).json()["id"]
    try:
        return asyncio.run(_run(kernel, code, token(platform)))
    finally:
        ask(platform, "DELETE", f"api/kernels/{kernel}")


def fine(platform: Stack, code: str) -> str:
    status, said = cell(platform, code)
    assert status == "ok", said
    return said.strip()


def inside(platform: Stack, *words: str) -> str:
    return docker("exec", platform.container("jupyter"), *words)


def test_the_verdict_holds_and_a_second_run_changes_nothing(platform: Stack) -> None:
    code, judged, text = platform.verify()
    assert code == 0, text
    held = {check.name: check.detail for check in judged.checks if check.ok}
    assert "A notebook's cell reaches what it is promised" in held
    assert "Without its token Jupyter only tells its version" in held
    assert "The notebooks' user reaches only its own buckets" in held
    assert "changed=0" in platform.play("site.yml")


def test_a_cell_runs_over_a_web_socket_with_the_token_and_a_stranger_gets_none(
    platform: Stack,
) -> None:
    assert fine(platform, "print(6 * 7)") == "42"
    kernel = ask(platform, "POST", "api/kernels", json={"name": "python3"}).json()["id"]
    for key in ("", "a-token-that-is-not-the-one"):
        with pytest.raises(HTTPClientError) as refused:
            asyncio.run(_run(kernel, "print(1)", key))
        assert refused.value.code == 403
    ask(platform, "DELETE", f"api/kernels/{kernel}")


@pytest.mark.usefixtures("platform")
@pytest.mark.parametrize("path", ["", "lab", "lab/tree/start_here.ipynb", "files/start_here.ipynb"])
def test_a_page_sends_a_stranger_to_the_log_in(path: str) -> None:
    answer = requests.get(f"http://127.0.0.1:{PORT}/{path}", timeout=30, allow_redirects=False)
    assert answer.status_code == 302
    last = requests.get(f"http://127.0.0.1:{PORT}/{path}", timeout=30)
    assert "/login" in last.url
    assert "start-here" not in last.text


def test_the_starter_notebook_is_on_the_host_and_every_cell_of_it_runs(platform: Stack) -> None:
    shipped = ROOT / "roles/jupyter/files/notebooks/start_here.ipynb"
    assert (notebooks(platform) / "start_here.ipynb").read_text() == shipped.read_text()
    inside(
        platform, "jupyter", "execute", "--kernel_name=python3", "--output=done", "start_here.ipynb"
    )
    done = json.loads((notebooks(platform) / "done.ipynb").read_text())
    said = json.dumps([each.get("outputs") for each in done["cells"]])
    assert "178 rows came back from s3://" in said
    assert "image/png" in said
    (notebooks(platform) / "done.ipynb").unlink()


PROJECT = """
set -e
rm -rf /tmp/project && mkdir /tmp/project && cd /tmp/project
git init -q && dvc init -q
echo pulled > data.csv && dvc add -q data.csv && dvc push -q
rm -rf .dvc/cache data.csv && dvc pull -q && cat data.csv
"""


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import mlflow; print(mlflow.set_experiment('typed').name)", "typed"),
        ("import boto3; print(boto3.client('s3').head_bucket(Bucket='notebooks') != {})", "True"),
        (f"import subprocess; subprocess.run({PROJECT!r}, shell=True, check=True)", "pulled"),
    ],
    ids=["tracking", "store", "remote"],
)
def test_it_is_found_with_nothing_typed(platform: Stack, code: str, said: str) -> None:
    # among what libraries log
    assert said in fine(platform, code).splitlines()


def test_a_notebook_saved_in_the_browser_is_on_the_host_and_a_file_of_the_host_in_the_browser(
    platform: Stack,
) -> None:
    made = ask(
        platform,
        "PUT",
        "api/contents/mine.txt",
        json={"type": "file", "format": "text", "content": "hi"},
    )
    assert made.status_code == 201
    there = notebooks(platform) / "mine.txt"
    assert there.read_text() == "hi"
    assert there.stat().st_uid == 10001
    (notebooks(platform) / "yours.txt").write_text("from the host")
    os.chown(notebooks(platform) / "yours.txt", 10001, 10001)
    assert ask(platform, "GET", "api/contents/yours.txt").json()["content"] == "from the host"
    # the trash would be on another disk
    assert ask(platform, "DELETE", "api/contents/mine.txt").status_code == 204
    assert not there.exists()


PACKAGE = """
[project]
name = "added"
version = "1.0"
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
"""


def test_a_package_that_a_cell_adds_is_there_when_the_container_was_made_anew(
    platform: Stack, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").write_text(PACKAGE)
    (tmp_path / "added.py").write_text("SAYS = 'still here'\n")
    wheels = notebooks(platform) / "wheels"
    subprocess.run(
        [
            BIN / "python",
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "-w",
            wheels,
            tmp_path,
        ],
        check=True,
    )
    for path in (wheels, *wheels.iterdir()):
        os.chown(path, 10001, 10001)
    said = fine(platform, "%pip install --no-index --find-links /notebooks/wheels added pandas")
    assert "Successfully installed added-1.0" in said
    assert "already satisfied: pandas" in said, "what the image has was installed again"
    shutil.rmtree(wheels)
    docker("rm", "--force", platform.container("jupyter"))
    platform.play("site.yml", "--skip-tags", "verify")
    assert fine(platform, "import added; print(added.SAYS)") == "still here"


def test_a_cell_that_takes_all_memory_ends_its_kernel_and_not_the_server(platform: Stack) -> None:
    before = docker("inspect", "--format", "{{.State.StartedAt}}", platform.container("jupyter"))
    status, said = cell(platform, "x = [bytearray(2**26) for _ in range(64)]; print('all of it')")
    assert status == "died", said
    assert (
        docker("inspect", "--format", "{{.State.StartedAt}}", platform.container("jupyter"))
        == before
    )
    assert fine(platform, "print('well')") == "well"


def test_a_cell_that_fails_says_what_and_the_kernel_goes_on(platform: Stack) -> None:
    assert cell(platform, "1 / 0") == ("error", "ZeroDivisionError: division by zero")
    code = "import boto3; boto3.client('s3').list_objects_v2(Bucket='mlflow-artifacts')"
    status, said = cell(platform, code)
    assert status == "error"
    assert "AccessDenied" in said


def test_neither_the_log_nor_a_command_line_nor_the_definition_shows_the_token(
    platform: Stack,
) -> None:
    name, secret = platform.container("jupyter"), token(platform)
    log = subprocess.run(["docker", "logs", name], capture_output=True, text=True, check=True)
    assert "/lab" in log.stdout + log.stderr
    lines = inside(platform, "sh", "-c", "cat /proc/[0-9]*/cmdline /proc/1/environ | tr '\\0' ' '")
    assert "jupyter-lab" in lines
    for text in (log.stdout, log.stderr, docker("inspect", name), lines):
        assert secret not in text


def test_a_folder_that_belongs_to_somebody_else_is_told_in_one_sentence_and_heals(
    platform: Stack,
) -> None:
    name, folder = platform.container("jupyter"), notebooks(platform)
    os.chown(folder, 0, 0)
    docker("restart", "--time", "5", name)

    def told() -> bool:
        log = subprocess.run(
            ["docker", "logs", "--tail", "5", name], capture_output=True, text=True, check=True
        )
        return "cannot be written by 10001:10001, it is 0:0's: set jupyter_user" in log.stderr

    wait_for(told, "the sentence")
    os.chown(folder, 10001, 10001)
    wait_for(
        lambda: docker("inspect", "--format", "{{.State.Health.Status}}", name) == "healthy",
        "the server to heal",
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jupyter_token": "short"}, "jupyter_token has 5 characters: give it 16 or more."),
        ({"jupyter_base_url": "jupyter"}, "begin and end it with a slash"),
        ({"jupyter_notebooks": "notebooks"}, "name a folder of the host by its absolute path"),
        ({"jupyter_database": "x", "jupyter_database_password": ""}, "the database x needs one"),
    ],
)
def test_a_setting_that_would_not_do_is_refused_before_anything_is_touched(
    platform: Stack, given: dict[str, str], said: str
) -> None:
    told = platform.attempt("site.yml", "--check", **given)
    assert said in " ".join(told.split())
    assert "changed=0" in told
