"""All components on one host, of which the gateway alone is open."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect
from tests.infra.conftest import ADMIN, GUEST, Stack, data, gated_stack
from tests.infra.faults_support import LABEL, docker, lives_of, wait_for
from tests.infra.test_gateway import CLIENTS, as_admin, ask, client, connected, secret, session
from tests.infra.test_pages import CHROMIUM, DESK, browser_at, shot

NAME, PORT = "mlops-full", 9843
DAGS = "/airflow/api/v2/dags"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dmVyaWZ5LXZlcmlmeS0xMg==",
}
CELL: dict[str, Any] = {
    "cell_type": "code",
    "id": "one",
    "source": "print(6 * 7)",
    "metadata": {},
    "outputs": [],
    "execution_count": None,
}


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The platform of inventory/full, whose pipeline has run, on other ports."""
    at = tmp_path_factory.mktemp(NAME)
    made = gated_stack(
        NAME,
        PORT,
        at,
        "full",
        jupyter_notebooks=str(at / "notebooks"),
        airflow_dags_folder=str(at / "dags"),
        airflow_plugins_folder=str(at / "plugins"),
        dvc_runner_data=data(),
        gateway_users=[
            {"name": "admin", "groups": ["admin"], "password": ADMIN},
            {"name": "guest", "groups": ["guests"], "password": GUEST},
        ],
    )
    for above in (at, at.parent):
        above.chmod(0o755)
    try:
        made.play("site.yml", "--skip-tags", "verify")
        yield made
    finally:
        made.destroy()


def test_every_promise_that_any_service_makes_is_kept(full: Stack) -> None:
    code, found, text = full.verify()
    assert code == 0, text
    # it has everything, so nothing else is left out
    assert {check.name for check in found.checks if check.ok is None} == {
        "What a DAG run recorded is in MLflow",
        "Without its token Jupyter only tells its version",
    }


def test_a_second_run_changes_nothing(full: Stack) -> None:
    assert "changed=0" in full.play("site.yml")


def test_the_gateway_alone_is_published(full: Stack) -> None:
    form = "{{.Names}} {{.Ports}}"
    label = f"label={LABEL}={full.name}"
    lines = docker("ps", "--filter", label, "--format", form).splitlines()
    published = {line.split()[0] for line in lines if "->" in line}
    assert published == {full.container("gateway")}


@pytest.fixture(scope="module")
def page(full: Stack) -> Iterator[Page]:
    """A browser whose user has logged in to the gateway."""
    if not CHROMIUM:
        pytest.skip("there is no chromium on this machine")
    with browser_at(f"https://localhost:{PORT}", DESK) as shown:
        log_in(full, shown, "admin")
        yield shown


def log_in(full: Stack, page: Page, name: str) -> None:
    """Log in to the gateway, and to nothing else."""
    page.goto("/login")
    page.fill("input[name=name]", name)
    page.fill("input[name=password]", secret(full, f"{name}_password"))
    page.get_by_role("button").click()
    expect(page.get_by_role("button", name=f"Log out {name}")).to_be_visible()


def test_the_start_page_says_of_each_that_it_is_up(page: Page) -> None:
    page.goto("/")
    expect(page.locator("li")).to_have_count(4)
    expect(page.locator(".up")).to_have_count(4)
    shot(page, "full-start")


def test_a_cell_runs_in_the_browser_through_the_gateway(full: Stack, page: Page) -> None:
    path = Path(full.variables["jupyter_notebooks"]) / "browser.ipynb"
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [CELL], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))
    path.chmod(0o666)
    page.goto("/jupyter/lab/tree/browser.ipynb")
    expect(page.get_by_text("Python 3 | Idle")).to_be_visible()
    page.get_by_text("print(6 * 7)").first.click()
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").filter(has_text="42")).to_be_visible()
    shot(page, "jupyter")


def test_no_cookie_goes_out_that_a_browser_would_send_in_clear(full: Stack) -> None:
    for path in ("/jupyter/login", "/airflow/auth/login/"):
        connection = connected(full)
        connection.request("GET", path, headers={"Authorization": as_admin(full)})
        cookies = connection.getresponse().headers.get_all("Set-Cookie") or []
        connection.close()
        assert cookies, path
        assert all("secure" in cookie.lower().split("; ") for cookie in cookies), cookies


def test_airflows_page_has_no_log_in_of_its_own(page: Page) -> None:
    page.goto("/airflow/dags")
    expect(page.get_by_text("wine_training").first).to_be_visible()
    shot(page, "full-airflow")


def test_who_logs_in_next_in_a_browser_has_nothing_of_who_was_there_before(
    full: Stack, page: Page
) -> None:
    # pages of Airflow that have a session of their own
    page.goto("/airflow/auth/users/list/")
    expect(page.get_by_text("List Users").first).to_be_visible()
    assert page.request.get("/airflow/ui/auth/me").json()["username"] == "admin"
    page.goto("/airflow/api/v2/auth/logout")
    page.get_by_role("button", name="Log out admin").click()
    expect(page.locator("input[name=password]")).to_be_visible()
    for path in ("/airflow/dags", "/jupyter/lab"):
        page.goto(path)
        expect(page.locator("input[name=name]")).to_be_visible()
    log_in(full, page, "guest")
    assert page.request.get("/airflow/ui/auth/me").json()["username"] == "guest"
    page.goto("/airflow/auth/users/list/")
    page.wait_for_url("**/airflow/")
    assert page.request.get("/airflow/api/v2/connections").status == 403
    assert page.request.get("/jupyter/api/contents").status == 403


def test_a_program_may_in_airflow_what_its_users_groups_may(full: Stack) -> None:
    admin, guest = as_admin(full), as_admin(full, "guest")
    for path, method, statuses in (
        (DAGS, "GET", (200, 200)),
        ("/airflow/api/v2/connections", "GET", (200, 403)),
        (f"{DAGS}/model_refresh?update_mask=is_paused", "PATCH", (422, 403)),
        ("/jupyter/api/contents", "GET", (200, 403)),
    ):
        found = [ask(full, path, method, Authorization=who)[0] for who in (admin, guest)]
        assert tuple(found) == statuses, path
    # what a client says of itself is not passed on
    spoofed = {"X_Forwarded_User": "admin", "X_Forwarded_Groups": "admin"}
    path = "/airflow/api/v2/connections"
    assert ask(full, path, Authorization=guest, **spoofed)[0] == 403
    token = f"Proxy {secret(full, 'airflow_proxy_token')}"
    assert ask(full, path, Authorization=token, **spoofed)[0] == 401


def test_airflow_gives_a_user_of_the_gateway_no_token_which_the_gateway_would_not_take(
    full: Stack,
) -> None:
    guest = as_admin(full, "guest")
    for path in ("/airflow/auth/token", "/airflow/auth/token/cli"):
        status, _, text = ask(full, path, "POST", Authorization=guest)
        assert status == 403
        assert text.startswith("The proxy before Airflow takes no token of it: send user and ")
    assert ask(full, DAGS, Authorization="Bearer of-airflow")[0] == 401


def test_a_page_of_airflow_sends_a_browser_on_by_the_address_that_it_came_by(full: Stack) -> None:
    guest = as_admin(full, "guest")
    status, goal, _ = ask(full, "/airflow/auth/users/list/", Authorization=guest)
    assert status == 302
    come_back = parse_qs(urlsplit(goal).query)["next"]
    assert come_back == [f"https://localhost:{PORT}/airflow/auth/users/list/"]


def test_a_page_of_another_site_acts_on_no_notebook(full: Stack) -> None:
    cookie, evil = session(full), "https://evil.example"
    status, _, text = ask(full, "/jupyter/api/kernels", "POST", Cookie=cookie)
    assert status == 201, text
    kernel = f"/jupyter/api/kernels/{json.loads(text)['id']}"
    for origin, made, opened in ((evil, 403, 403), (f"https://localhost:{PORT}", 201, 101)):
        sent = {"Cookie": cookie, "Origin": origin}
        assert ask(full, "/jupyter/api/kernels", "POST", **sent)[0] == made
        assert ask(full, f"{kernel}/channels", **sent, **UPGRADE)[0] == opened
    embeds = {"Cookie": cookie, "Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors"}
    assert ask(full, "/jupyter/files/start_here.ipynb", **embeds)[0] == 403
    for each in json.loads(ask(full, "/jupyter/api/kernels", Cookie=cookie)[2]):
        ask(full, f"/jupyter/api/kernels/{each['id']}", "DELETE", Cookie=cookie)


def from_a_stage(full: Stack, url: str, *words: str) -> tuple[int, str]:
    """What a stage of a pipeline, which has the platform's network, is answered."""
    asked = ("curl", "-sS", "-w", "\n%{http_code}", *words, url)
    text = docker("exec", full.container("dvc-runner-wine"), *asked)
    body, _, status = text.rpartition("\n")
    return int(status), body


def header(name: str, value: str) -> tuple[str, str]:
    """Words of curl."""
    return "-H", f"{name}: {value}"


def has(container: str, text: str, paths: str) -> bool:
    """Tell whether a container's own user finds a text in its files."""
    words = ["docker", "exec", "-i", container, "sh", "-c", f"grep -rqsF -f - {paths}"]
    return subprocess.run(words, input=text, text=True, check=False).returncode == 0


def test_no_neighbour_is_believed_to_be_a_user(full: Stack) -> None:
    url = f"http://airflow:8080{DAGS}"
    spoofed = (*header("X-Forwarded-User", "admin"), *header("X-Forwarded-Groups", "admin"))
    for said in ("", "Proxy", "Proxy ", "Proxy wrong-but-long-enough", "Basic YWRtaW46eA=="):
        assert from_a_stage(full, url, *spoofed, *header("Authorization", said))[0] == 401
    assert from_a_stage(full, "http://airflow:8080/airflow/auth/users/list/", *spoofed)[0] == 302
    assert from_a_stage(full, "http://jupyter:8888/jupyter/api/contents", *spoofed)[0] == 403
    # a program inside logs in as before
    known = {"username": "admin", "password": secret(full, "airflow_admin_password")}
    form = (*header("Content-Type", "application/json"), "-d", json.dumps(known))
    status, text = from_a_stage(full, "http://airflow:8080/airflow/auth/token", *form)
    assert status == 201
    key = json.loads(text)["access_token"]
    assert from_a_stage(full, url, *header("Authorization", f"Bearer {key}"))[0] == 200


def test_what_lets_the_gateway_in_is_seen_by_the_two_alone(full: Stack) -> None:
    for name, owner in (("airflow_proxy_token", "airflow"), ("jupyter_token", "jupyter")):
        token, holders = secret(full, name), {full.container("gateway"), full.container(owner)}
        form = ("ps", "--filter", f"label={LABEL}={full.name}", "--format", "{{.Names}}")
        seen = {one for one in docker(*form).split() if has(one, token, "/run/secrets /config")}
        assert seen == holders
        assert token not in docker("inspect", *holders)
        for one in holders:
            assert not has(one, token, "/config")
            log = subprocess.run(
                ["docker", "logs", one], capture_output=True, text=True, check=True
            )
            assert token not in log.stdout + log.stderr
    for path, name in (("/airflow/", "airflow_proxy_token"), ("/jupyter/lab", "jupyter_token")):
        status, _, text = ask(full, path, Authorization=as_admin(full))
        assert status == 200
        assert secret(full, name) not in text


def rounds(directory: Path) -> int:
    """How often a client went round."""
    path = directory / "rounds"
    return int(path.read_text() or 0) if path.exists() else 0


def well(full: Stack) -> bool:
    """Tell whether every container that stays is healthy."""
    form = ("ps", "--filter", f"label={LABEL}={full.name}", "--format", "{{.Status}}")
    return all("(healthy)" in line for line in docker(*form).splitlines())


def test_each_container_is_restarted_in_turn_and_no_client_loses_a_request(
    full: Stack, tmp_path: Path
) -> None:
    environment = tmp_path / "env"
    full.play("playbooks/env.yml", ansible_become=False, dvc_runner_env_file=str(environment))
    ended: list[tuple[int, str]] = []

    def work() -> None:
        words = (str(tmp_path), "dvc-storage")
        # what boto3 waits by itself is less than some servers take to start
        patient = "export AWS_RETRY_MODE=standard AWS_MAX_ATTEMPTS=10"
        ended.append(client(environment, CLIENTS / "steady.py", *words, first=patient))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        wait_for(lambda: rounds(tmp_path) > 3 or ended, "the first rounds")
        # those of Airflow have a test of their own
        others = [one for one in sorted(lives_of(full.name)) if "-airflow" not in one]
        for container in others:
            docker("restart", container)
            wait_for(lambda: well(full), f"all to be healthy after a restart of {container}")
            (tmp_path / "rounds").unlink(missing_ok=True)
            wait_for(lambda: rounds(tmp_path) or ended, f"rounds after a restart of {container}")
            assert not ended, (container, ended)
    finally:
        (tmp_path / "end").touch()
        thread.join()
    assert ended[0][0] == 0, ended[0][1]
    code, _, text = full.verify()
    assert code == 0, text
