"""All components on one host, of which the gateway alone is open."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from tests.infra.conftest import Stack, data, gated_stack
from tests.infra.faults_support import LABEL, docker
from tests.infra.test_gateway import as_admin, secret
from tests.infra.test_pages import CHROMIUM, DESK, browser_at, shot

NAME, PORT = "mlops-full", 9843
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
        shown.goto("/login")
        shown.fill("input[name=name]", "admin")
        shown.fill("input[name=password]", secret(full, "admin_password"))
        shown.get_by_role("button").click()
        yield shown


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
    page.fill("input[name=password]", secret(full, "jupyter_token"))
    page.get_by_role("button", name="Log in", exact=True).click()
    expect(page.get_by_text("Python 3 | Idle")).to_be_visible()
    page.get_by_text("print(6 * 7)").first.click()
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".jp-OutputArea-output").filter(has_text="42")).to_be_visible()
    shot(page, "jupyter")


def test_no_cookie_goes_out_that_a_browser_would_send_in_clear(full: Stack) -> None:
    context = ssl.create_default_context(cadata=secret(full, "ca.crt"))
    for path in ("/jupyter/login", "/airflow/auth/login/"):
        connection = http.client.HTTPSConnection("localhost", PORT, context=context, timeout=60)
        connection.request("GET", path, headers={"Authorization": as_admin(full)})
        cookies = connection.getresponse().headers.get_all("Set-Cookie") or []
        connection.close()
        assert cookies, path
        assert all("secure" in cookie.lower().split("; ") for cookie in cookies), cookies


def test_airflows_page_is_behind_its_own_log_in(full: Stack, page: Page) -> None:
    page.goto("/airflow/")
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", secret(full, "airflow_admin_password"))
    page.get_by_role("button", name="Sign In").click()
    page.wait_for_url("**/airflow/")
    page.goto("/airflow/dags")
    expect(page.get_by_text("wine_training").first).to_be_visible()
    shot(page, "full-airflow")
