"""The words that were retired stay out of names, docstrings, comments, log lines and docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("airflow_provider_comet", "example_dags", "tests", "benchmarks")
FILES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/*.md",
        "airflow_provider_comet/**/*.py",
        "example_dags/*.py",
        "tests/**/*.py",
        "benchmarks/**/*.py",
    )
    for path in ROOT.glob(pattern)
    if path != Path(__file__)
)
RETIRED = {
    r"look(s|ed|ing)?(?!( |-|_)(up|like))": "poll, get, read",
    r"goes on|go on|going on|went on": "continue, keep running",
    r"comes back|is borne|what there is": "plain words",
    r"overdue|pace|paces|renewed": "deadline sweeper, rate limiter, refreshing",
    r"heed(s|ed|ing)?|amid|recall(s|ed)?": "apply, within, read",
    r"wait_rule|(?<!serve_forever\()(?<!REPLICATE_)poll_interval": "on_item_error, poke_interval",
    r"comet\\.(looks|look_errors|create|creates)": "comet.polls, comet.poll_errors, comet.created",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_word(path: Path) -> None:
    """Names count, too: `last_look` is two words."""
    text = path.read_text(encoding="utf-8")
    found = [
        f"line {text.count(chr(10), 0, match.start()) + 1}: {match[0]!r}; better: {better}"
        for retired, better in RETIRED.items()
        for match in re.finditer(rf"(?<![A-Za-z])({retired})(?![A-Za-z])", text, re.IGNORECASE)
    ]
    assert found == []
