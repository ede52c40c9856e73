"""Metrics and audit lines."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_comet import metrics
from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction


class Stats:
    """A metrics backend that keeps what it gets, or refuses everything."""

    def __init__(self, *, fails: bool = False) -> None:
        self.sent: list[tuple[object, ...]] = []
        self._fails = fails

    def __getattr__(self, kind: str) -> object:
        def send(name: str, *args: float, tags: dict[str, str]) -> None:
            if self._fails:
                raise OSError("no such host")
            self.sent.append((kind, name, *args, tags))

        return send


def test_each_kind_of_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters, gauges and times reach the backend with their tags; times in milliseconds."""
    stats = Stats()
    monkeypatch.setattr(metrics, "Stats", stats)
    metrics.count("comet.polls", conn_id="a")
    metrics.gauge("comet.waits", 3)
    metrics.timing("comet.detection_delay", 1.5)
    assert stats.sent == [
        ("incr", "comet.polls", {"conn_id": "a"}),
        ("gauge", "comet.waits", 3, {}),
        ("timing", "comet.detection_delay", 1500.0, {}),
    ]


def test_a_backend_that_fails_costs_nothing(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the backend is a warning in the log, and no error of the task."""
    monkeypatch.setattr(metrics, "Stats", Stats(fails=True))
    metrics.count("comet.created")
    assert "comet.created could not be sent" in caplog.text


def test_only_ended_predictions_are_finished(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The audit log has a line for each end, good or bad, and none for an error or a prediction that still runs."""
    stats = Stats()
    monkeypatch.setattr(metrics, "Stats", stats)
    done, failed = Prediction("a", "succeeded", model="x/y"), Prediction("b", "failed")
    with caplog.at_level(logging.INFO):
        metrics.finished([done, failed.summary(), e.PredictionTimeoutError("late"), Prediction("c", "processing")])
    assert [record.getMessage() for record in caplog.records] == [
        "comet.finished id=a model=x/y status=succeeded",
        "comet.finished id=b model=None status=failed",
    ]
    assert [tags for *_, tags in stats.sent] == [{"status": "succeeded"}, {"status": "failed"}]
