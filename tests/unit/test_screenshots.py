"""All pictures of the documentation come from a single script."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "tests" / "e2e" / "screenshots.py"
IMAGES = ROOT / "docs" / "images"


def test_the_script_takes_every_picture() -> None:
    """The files in docs/images are exactly those that the script takes."""
    taken = re.findall(r'^ +take\("([\w-]+)"', SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(f"{name}.png" for name in taken) == sorted(path.name for path in IMAGES.iterdir())


def test_every_picture_is_shown() -> None:
    """Each picture is in a page of the documentation, and the pages link to no other local picture."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        (page.parent / link).resolve()
        for page in pages
        for link in re.findall(r"!\[[^]]+\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8"))
    }
    assert shown == set(IMAGES.iterdir())


def test_nothing_else_takes_screenshots() -> None:
    """No other Python file drives a browser."""
    files = [
        path for folder in ("tests", "benchmarks", "airflow_provider_comet") for path in (ROOT / folder).rglob("*.py")
    ]
    drivers = [path for path in files if re.search(r"^(from|import) playwright", path.read_text("utf-8"), re.MULTILINE)]
    assert drivers == [SCRIPT]
