"""The pages of a platform behind its gateway, in a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Error, Page, Response, ViewportSize, expect, sync_playwright
from tests.infra.conftest import ROOT, Stack
from tests.infra.faults_support import docker
from tests.infra.test_gateway import CLIENTS, client, secret

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on this machine")
SHOTS = ROOT / "reports/browser"
PHONE, DESK = ViewportSize(width=390, height=844), ViewportSize(width=1280, height=800)
PATIENCE = 60_000.0  # milliseconds


@contextmanager
def browser_at(address: str, viewport: ViewportSize) -> Iterator[Page]:
    """Open a browser for an address; whether it trusts the certificate is asked elsewhere."""
    with sync_playwright() as programs:
        # Chromium ends requests over HTTP/2 where a container that starts adds an interface
        words = ["--no-sandbox", "--disable-http2"]
        browser = programs.chromium.launch(executable_path=CHROMIUM, args=words)
        context = browser.new_context(base_url=address, ignore_https_errors=True, viewport=viewport)
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        page = context.new_page()
        page.goto = patient(page.goto)  # type: ignore[method-assign]
        yield page
        browser.close()


def patient(goto: Callable[..., Response | None]) -> Callable[..., Response | None]:
    """Go to a page again where Chromium gave up for an interface that came or went meanwhile."""

    def again(*words: str) -> Response | None:
        for _ in range(9):
            try:
                return goto(*words)
            except Error as error:
                if "ERR_NETWORK_CHANGED" not in error.message:
                    raise
        return goto(*words)

    return again


@pytest.fixture(scope="module")
def page(gated: Stack) -> Iterator[Page]:
    """A browser before anybody logged in."""
    with browser_at(f"https://localhost:{gated.variables['gateway_port']}", PHONE) as opened:
        yield opened


def shot(page: Page, name: str) -> None:
    """Keep a picture of what is seen."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def answered_with_an_error(gated: Stack) -> str:
    """Lines of the gateway's log that a client would try again after."""
    lines = docker("logs", "--tail", "200", gated.container("gateway")).splitlines()
    return "\n".join(line for line in lines if '"status":5' in line)


def test_a_stranger_sees_the_form_and_a_wrong_password_says_so(page: Page) -> None:
    page.goto("/mlflow/")
    page.fill("input[name=name]", "admin")
    page.fill("input[name=password]", "wrong")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_contain_text("do not belong together")


def test_the_start_page_fits_a_phone_and_says_what_is_up(gated: Stack, page: Page) -> None:
    page.goto("/")
    page.fill("input[name=name]", "admin")
    page.fill("input[name=password]", secret(gated, "admin_password"))
    page.get_by_role("button").click()
    expect(page.locator(".up")).to_have_count(page.locator("li").count())
    expect(page.locator("li")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    shot(page, "start")


def test_mlflow_shows_what_a_client_tracked_and_registered(
    gated: Stack, page: Page, gated_env: Path
) -> None:
    page.set_viewport_size(DESK)
    for script, word in (("transfer.py", "1000"), ("seen.py", "model-seen-in-a-browser")):
        code, said = client(gated_env, CLIENTS / script, word)
        assert code == 0, said + answered_with_an_error(gated)
    page.goto("/")
    page.get_by_role("link", name="MLflow").click()
    expect(page.get_by_text("clients", exact=True).first).to_be_visible()
    shot(page, "mlflow")
    page.goto("/mlflow/#/models/model-seen-in-a-browser")
    expect(page.get_by_text("challenger").first).to_be_visible()
    shot(page, "mlflow-model")


def test_the_console_shows_an_object(gated: Stack, page: Page, gated_env: Path) -> None:
    code, said = client(gated_env, CLIENTS / "storage.py", "dvc-storage", "1000")
    assert code == 0, said
    page.goto("/minio/")
    page.fill("#accessKey", "dvc")
    page.fill("#secretKey", secret(gated, "dvc_runner_s3_secret_key"))
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Acknowledge").click()
    expect(page.get_by_text("storage", exact=True).first).to_be_visible()
    shot(page, "minio")


def test_who_logged_out_is_a_stranger_at_every_page(page: Page) -> None:
    page.goto("/")
    page.get_by_role("button", name="Log out admin").click()
    expect(page.locator("input[name=password]")).to_be_visible()
    for path in ("/", "/mlflow/", "/minio/"):
        page.goto(path)
        expect(page.locator("input[name=password]")).to_be_visible()
