"""`make screenshots`: what Airflow's UI shows of this package, from a real Airflow through a real browser.

It needs Debian's `chromium`, or CHROMIUM=/path/to/another one, and writes the pictures of the documentation to
docs/images/. Whoever runs it looks at them: a wait below is for what a picture must show, not for how it looks.
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
DAG = "example_prediction"
CHROMIUM = "chromium", "chromium-browser", "google-chrome"
# Root needs the first one, and a browser that talks to nobody else the others.
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
    """A page of a new browser without a past, to which only this Airflow can be reached."""
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        sys.exit("no browser found: apt-get install chromium, or CHROMIUM=/path/to/one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        try:
            page = browser.new_page(base_url=url, color_scheme="light", locale="en-US", reduced_motion="reduce")
            page.route(lambda address: not address.startswith(url), lambda route: route.abort())
            page.set_default_timeout(60_000)
            yield page
        finally:
            browser.close()


def shot(name: str, what: Page | Locator) -> None:
    """Store a picture; with a palette it is a third of the size and looks the same."""
    (what if isinstance(what, Page) else what.page).wait_for_timeout(1500)  # the end of all movement
    picture = Image.open(io.BytesIO(what.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB", flush=True)


def look_at(page: Page, address: str, height: int) -> None:
    """Open a page of Airflow in a window as high as what there is to be seen."""
    page.set_viewport_size({"width": WIDTH, "height": height})
    page.goto(address)


def connection_form(page: Page) -> None:
    """Both parts of the form; Airflow shows one at a time."""
    look_at(page, "/connections", 1100)
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("input[name=connection_id]").fill("cometapi_default")
    form.get_by_role("combobox").click()
    page.keyboard.type("CometAPI")
    page.keyboard.press("Enter")
    form.get_by_text("API key").wait_for()
    shot("connection-form", form)
    form.get_by_text("Extra Fields", exact=True).click()
    form.get_by_text("Output hosts").wait_for()
    shot("connection-extra-fields", form)


def without_port(route: Route) -> None:
    """Repair what Airflow 3.3.1 and 3.3.2 send: port 0 for none, which they then refuse (apache/airflow#73298)."""
    asked = json.loads(route.request.post_data or "{}")
    route.continue_(post_data={**asked, "port": None})


def connection_test(page: Page, airflow: Standalone, emulator: Emulator) -> None:
    """A good key and a bad one, tested; the good connection is what the run uses then."""
    for name, key in ("cometapi_default", emulator.api_key), ("cometapi_old_key", "sk-replaced"):
        known = {**json.loads(emulator.connection_json()), "connection_id": name, "password": key}
        airflow.rest.send("POST", "/api/v2/connections", known)
    page.route("**/api/v2/connections/test", without_port)
    look_at(page, "/connections", 640)
    for name, answer in ("cometapi_default", "green"), ("cometapi_old_key", "red"):
        test = page.get_by_role("row", name=name).get_by_role("button", name="Test Connection")
        test.click()
        page.mouse.move(0, 0)  # its tooltip would lie over the next one
        test.locator(f"svg[color={answer}]").wait_for()
    page.get_by_text("refused the API key").first.wait_for()
    shot("connection-test", page)


def run(page: Page, airflow: Standalone, emulator: Emulator) -> None:
    """One run of the example, while it waits and after it."""
    rest = airflow.rest
    rest.wait_for_dag(DAG)
    run_id = rest.trigger(DAG)
    task = f"/dags/{DAG}/runs/{run_id}/tasks"
    until("the wait is deferred", lambda: {"wait": "deferred"}.items() <= states(airflow, run_id).items())
    look_at(page, f"{task}/wait", 560)
    page.get_by_text(re.compile("trigger .* starting")).wait_for()
    page.get_by_text("status 'processing'").nth(1).wait_for()  # the triggerer's, after the worker's
    shot("wait-deferred", page)

    (prediction,) = (one["id"] for one in emulator.ledger()["creates"])
    emulator.set_prediction(prediction, status="succeeded")
    until("the run has ended", lambda: rest.run_state(DAG, run_id) == "success")
    look_at(page, f"{task}/create/details", 560)
    page.get_by_role("link", name="Model").wait_for()
    shot("model-link", page)
    look_at(page, f"{task}/create/task-state-store", 780)
    page.get_by_text("delivered").wait_for()
    shot("record", page)
    look_at(page, f"{task}/wait/xcom", 820)
    page.get_by_text("return_value").wait_for()
    page.wait_for_timeout(3000)  # the editor folds what is in it when it is ready
    page.get_by_role("button", name="Expand all").click()
    page.get_by_text('"status"').wait_for()  # the editor is lower than the whole value
    shot("wait-xcom", page)


def states(airflow: Standalone, run_id: str) -> dict[str, str | None]:
    """Each task's state."""
    return {one["task_id"]: one["state"] for one in airflow.rest.task_instances(DAG, run_id)}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with (
        Emulator(duration=3600) as emulator,  # it ends when it is told to
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
