"""`make screenshots`: what Airflow's UI shows of this provider, taken from a real Airflow by a real browser.

Needs Debian's `chromium` (or `CHROMIUM=/path/to/one`). The pictures go to docs/images/; Pillow makes them small.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.standalone import Standalone

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "docs" / "images"
DAG = "example_prediction"
SIZE = {"width": 1280, "height": 800}
COLOURS = 128


@contextmanager
def browser_page(url: str) -> Iterator[Page]:
    """A page of a fresh browser without a profile; everything that is not this machine is out of its reach."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("no browser found: apt-get install chromium, or CHROMIUM=/path/to/one")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport=SIZE, base_url=url, color_scheme="light")
            page.route(lambda asked: "127.0.0.1" not in asked, lambda route: route.abort())
            page.set_default_timeout(30_000)
            yield page
        finally:
            browser.close()


def shot(page: Page, name: str) -> None:
    """Store what the page shows now, with few colours: a user interface needs no more."""
    page.wait_for_timeout(1500)  # transitions
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    path = IMAGES / f"{name}.png"
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB", flush=True)


def open_when(page: Page, address: str, words: str) -> None:
    """Go there and wait until these words can be read."""
    page.goto(address)
    page.get_by_text(words).first.wait_for()


def connection(page: Page, connection_json: str) -> None:
    """The form of the connection, filled in, and what its test says."""
    known = json.loads(connection_json)
    page.goto("/connections")
    page.get_by_role("button", name="Add Connection").first.click()
    page.get_by_label("Connection ID").or_(page.locator("input[name=connection_id]")).first.fill("cometapi_default")
    page.get_by_role("combobox").first.click()
    page.keyboard.type("cometapi")
    page.keyboard.press("Enter")
    page.get_by_text("API key").first.wait_for()
    shot(page, "connection-form")
    page.locator("input[name=password]").fill(known["password"])
    page.locator("input[name=host]").fill(known["host"])
    page.get_by_role("button", name="Save").first.click()
    page.get_by_text("cometapi_default").first.wait_for()
    page.get_by_role("button", name="Test").first.click()
    shot(page, "connection-test")


def main() -> None:
    """Run the example once and look at it."""
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="comet-shots-", ignore_cleanup_errors=True) as temporary,
        Emulator(duration=60) as emulator,
        Standalone(
            dags_folder=ROOT / "example_dags",
            home=Path(temporary) / "airflow",
            env={"AIRFLOW__CORE__TEST_CONNECTION": "Enabled", "COMET_PICTURES": f"file://{temporary}/pictures"},
        ) as airflow,
        browser_page(airflow.url) as page,
    ):
        connection(page, emulator.connection_json())
        rest = airflow.rest
        rest.wait_for_dag(DAG)
        run = rest.trigger(DAG)
        states: Callable[[], dict[str, Any]] = lambda: {  # noqa: E731
            one["task_id"]: one["state"] for one in rest.task_instances(DAG, run)
        }
        until("the wait is deferred", lambda: states()["wait"] == "deferred", 60)
        task = f"/dags/{DAG}/runs/{run}/tasks"
        open_when(page, f"{task}/wait", "processing")
        shot(page, "deferred")
        open_when(page, f"{task}/create", "comet.create")
        shot(page, "create-log")
        (prediction,) = [one["id"] for one in emulator.ledger()["creates"]]
        emulator.set_prediction(prediction, status="succeeded")
        until("the run has ended", lambda: rest.run_state(DAG, run) == "success", 180)
        open_when(page, f"{task}/create/details", "Model")
        shot(page, "model-link")
        open_when(page, f"{task}/wait/xcom", "succeeded")
        shot(page, "xcom")
        open_when(page, f"{task}/wait", "succeeded")
        shot(page, "wait-log")


if __name__ == "__main__":
    main()
