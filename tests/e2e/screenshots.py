"""`make screenshots`: take all pictures of the documentation, from a real Airflow with a real browser.

It needs Debian's `chromium`, or CHROMIUM=/path/to/a/browser, and writes to docs/images/. Check the pictures before you
commit them: the script waits for what a picture must show, but does not check its appearance.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, Page, Route, sync_playwright

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.standalone import Standalone

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
DAG = "example_wait"
CHROMIUM = "chromium", "chromium-browser", "google-chrome"
# Root needs the first flag; the others keep the browser from connecting anywhere else.
FLAGS = [
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
]
WIDTH = 1280


@contextmanager
def browser_page(url: str) -> Iterator[Page]:
    """Open a page of a new browser that can reach only this Airflow."""
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        sys.exit("no browser found: apt-get install chromium, or set CHROMIUM=/path/to/a/browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(base_url=url, color_scheme="light", locale="en-US", reduced_motion="reduce")
            page.route(lambda address: not address.startswith(url), lambda route: route.abort())
            page.set_default_timeout(60_000)
            yield page
        finally:
            browser.close()


def take(name: str, target: Page | Locator) -> None:
    """Store a screenshot; with a palette it has a third of the size and the same appearance."""
    (target if isinstance(target, Page) else target.page).wait_for_timeout(1500)  # the end of all animations
    picture = Image.open(io.BytesIO(target.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB", flush=True)


def visit(page: Page, address: str, height: int) -> None:
    """Open a page of Airflow in a window of this height."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.goto(address)


def connection_form(page: Page) -> None:
    """Take both parts of the connection form, of which Airflow shows only one at a time."""
    visit(page, "/connections", 1100)
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill("cometapi_default")
    form.get_by_role("combobox").click()
    page.keyboard.type("CometAPI")
    page.keyboard.press("Enter")
    form.get_by_text("API key", exact=True).wait_for()
    take("connection-form", form)
    form.get_by_text("Extra Fields", exact=True).click()
    form.get_by_text("Output hosts").wait_for()
    take("connection-extra-fields", form)


def without_port(route: Route) -> None:
    """Remove port 0, which the form of Airflow 3.3.1 and 3.3.2 sends and its API refuses (apache/airflow#73298)."""
    body = json.loads(route.request.post_data or "{}")
    route.continue_(post_data={**body, "port": None})


def connection_test(page: Page, airflow: Standalone, emulator: Emulator) -> None:
    """Test a connection with a valid key and another with an invalid key; the run uses the valid connection."""
    for name, key in ("cometapi_default", emulator.api_key), ("cometapi_old_key", "sk-replaced"):
        connection = {**json.loads(emulator.connection_json()), "connection_id": name, "password": key}
        airflow.rest.send("POST", "/api/v2/connections", connection)
    page.route("**/api/v2/connections/test", without_port)
    visit(page, "/connections", 640)
    for name, color in ("cometapi_default", "green"), ("cometapi_old_key", "red"):
        test = page.get_by_role("row", name=name).get_by_role("button", name="Test Connection")
        test.click()
        page.mouse.move(0, 0)  # its tooltip would cover the next button
        test.locator(f"svg[color={color}]").wait_for()
    page.get_by_text("refused the API key").first.wait_for()
    take("connection-test", page)


def run(page: Page, airflow: Standalone, emulator: Emulator) -> None:
    """Take the pages of a run of the example, while it waits and after its end."""
    rest = airflow.rest
    rest.wait_for_dag(DAG)
    run_id = rest.trigger(DAG)
    task = f"/dags/{DAG}/runs/{run_id}/tasks"
    until("the wait is deferred", lambda: {"wait": "deferred"}.items() <= states(airflow, run_id).items())
    visit(page, f"{task}/wait", 560)
    page.get_by_text(re.compile("trigger .* starting")).wait_for()
    page.get_by_text("status 'processing'").nth(1).wait_for()  # the triggerer's line, after the worker's
    take("wait-deferred", page)

    (prediction_id,) = (create["id"] for create in emulator.ledger()["creates"])
    emulator.set_prediction(prediction_id, status="succeeded")
    until("the run has ended", lambda: rest.run_state(DAG, run_id) == "success")
    visit(page, f"{task}/create/details", 560)
    page.get_by_role("link", name="Model").wait_for()
    take("model-link", page)
    visit(page, f"{task}/create/task-state-store", 780)
    page.get_by_text("delivered").wait_for()
    take("record", page)
    visit(page, f"{task}/wait/xcom", 820)
    page.get_by_text("return_value").wait_for()
    page.wait_for_timeout(3000)  # the editor folds its content when it is ready
    page.get_by_role("button", name="Expand all").click()
    page.get_by_text('"status"').wait_for()  # the editor shows only the beginning of the value
    take("wait-xcom", page)


def states(airflow: Standalone, run_id: str) -> dict[str, str | None]:
    """Return the state of each task."""
    return {task["task_id"]: task["state"] for task in airflow.rest.task_instances(DAG, run_id)}


def main() -> None:
    """Take all screenshots."""
    IMAGES.mkdir(exist_ok=True)
    with (
        Emulator(duration=3600) as emulator,  # the script ends the prediction
        tempfile.TemporaryDirectory(prefix="comet-shots-", ignore_cleanup_errors=True) as home,
        Standalone(
            dags_folder=ROOT / "example_dags",
            home=Path(home),
            env={"AIRFLOW__CORE__TEST_CONNECTION": "Enabled"},
        ) as airflow,
        browser_page(airflow.url) as page,
    ):
        connection_form(page)
        connection_test(page, airflow, emulator)
        run(page, airflow, emulator)


if __name__ == "__main__":
    main()
