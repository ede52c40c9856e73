"""Hundreds of predictions whose links expire, stored as they come while processes are killed."""

from __future__ import annotations

import os
from pathlib import Path

from tests.e2e.store_run import FULL, SHORT, run_all

# The full version takes 20 minutes: STORE_FULL=1 make e2e
PLAN = FULL if os.environ.get("STORE_FULL") else SHORT


def test_each_is_kept_as_it_comes(tmp_path: Path) -> None:
    """Killed processes lose nothing and store nothing twice, and links that have expired are asked for again. In the
    full version also: no link expires before it is fetched, although the last prediction ends long after the first."""
    wrong = {findings.name: findings.wrong for findings in run_all(tmp_path, PLAN)}
    assert wrong == {variant.name: [] for variant in PLAN.variants}
