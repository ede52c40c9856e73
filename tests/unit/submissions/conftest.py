"""What the tests of submissions share."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, str]]]:
    """Every counter that was increased, with its tags."""
    from airflow.providers.common.compat.sdk import Stats

    found: list[tuple[str, dict[str, str]]] = []

    def incr(stat: str, *args: Any, tags: dict[str, str] | None = None, **kwargs: Any) -> None:
        if stat.startswith("comet."):
            found.append((stat, dict(tags or {})))

    monkeypatch.setattr(Stats, "incr", incr)
    return found
