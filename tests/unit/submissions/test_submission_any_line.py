"""``submissions/submission.py``: an exception from outside at any line of a create, such as Airflow's task timeout."""

from __future__ import annotations

import itertools
import os
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from airflow_provider_comet.emulator import Emulator
from tests.support.task_runner import TaskRunner
from tests.unit.submissions import batches
from tests.unit.submissions.creates import operator

AT_ONCE = 20
"""So many lines are tried in one test."""


class Interruption:
    """Raises Airflow's task timeout at the n-th line that a task runs while it creates.

    :ivar line: where that was; ``None``: it has fewer lines.
    """

    def __init__(self, number: int) -> None:
        self.line: str | None = None
        self._left = number

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        from airflow.sdk.exceptions import AirflowTaskTimeout

        # No lines of Python's own library: its locks would stay locked, which a real signal can't do to them.
        if "airflow_provider_comet" not in frame.f_code.co_filename:
            return None
        if event == "line" and self.line is None:
            self._left -= 1
            if self._left < 0:
                self.line = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise AirflowTaskTimeout("execution_timeout")
        return self


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> list[Interruption]:
    """The interruption of the next attempt is put in here; lines count from where its client sends the create."""
    from airflow_provider_comet.client.sync_client import CometClient
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    send, create, pending = CometClient.send, CreatePredictionOperator._create, []

    def traced_send(self: Any, *args: Any, **kwargs: Any) -> Any:
        if pending:
            interruption = pending.pop()
            frame: FrameType | None = sys._getframe()
            while frame is not None:  # its callers, too: they continue after it
                frame.f_trace, frame = interruption, frame.f_back
            sys.settrace(interruption)
        return send(self, *args, **kwargs)

    def traced_create(self: Any, *args: Any) -> Any:
        try:
            return create(self, *args)
        finally:
            sys.settrace(None)

    monkeypatch.setattr(CometClient, "send", traced_send)
    monkeypatch.setattr(CreatePredictionOperator, "_create", traced_create)
    return pending


@pytest.mark.parametrize("first", range(0, 140, AT_ONCE))
def test_an_interruption_at_any_line(
    comet: Emulator, runner: TaskRunner, traced: list[Interruption], first: int
) -> None:
    """Either nothing was sent, or the id is on record: the next try pays once, or not again, and never asks anybody."""
    runner.run(operator(), map_index=9999)  # loads what is loaded once
    for number in range(first, first + AT_ONCE):
        comet.reset()
        traced.append(interruption := Interruption(number))
        interrupted = runner.run(operator(), map_index=number)
        state = runner.record(map_index=number)
        if interruption.line is not None:
            assert interrupted.error is not None, interruption.line
        assert state is None or state["state"] in ("rejected", "accepted", "delivered"), interruption.line
        again = runner.run(operator(), map_index=number, try_number=2)
        assert again.error is None, interruption.line
        (made,) = comet.ledger()["creates"]
        assert again.result == made["id"], interruption.line


def test_how_many_lines_there_are(comet: Emulator, runner: TaskRunner, traced: list[Interruption]) -> None:
    """The test above reaches the last line of a create."""
    runner.run(operator(), map_index=9999)
    for number in itertools.count(0, AT_ONCE):
        traced.append(interruption := Interruption(number))
        runner.run(operator(), map_index=number)
        if interruption.line is None:
            break
    assert number <= 140, number


MOMENTS = [("http.client.HTTPConnection", "getresponse"), ("airflow_provider_comet.metrics", "created")]
"""After the answer to a create was read, and after its log line was written."""


@pytest.fixture(params=MOMENTS, ids=[name for _, name in MOMENTS])
def signalled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A signal reaches the process at a moment of its first create, and raises Airflow's task timeout."""
    from airflow.sdk.exceptions import AirflowTaskTimeout

    owner, name = pkgutil.resolve_name(request.param[0]), request.param[1]
    original, handled = getattr(owner, name), threading.Event()

    def handle(number: int, frame: object) -> None:
        handled.set()
        raise AirflowTaskTimeout("execution_timeout")

    def interrupting(*args: Any) -> Any:
        result = original(*args)
        if not handled.is_set():
            os.kill(os.getpid(), signal.SIGUSR1)
            assert handled.wait(10)
        return result

    monkeypatch.setattr(owner, name, interrupting)
    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_a_signal(comet: Emulator, runner: TaskRunner, signalled: None) -> None:
    """A real signal ends the task, and the id of what was paid for is known."""
    outcome = runner.run(operator())
    assert type(outcome.error).__name__ == "AirflowTaskTimeout"
    (made,) = comet.ledger()["creates"]
    assert (runner.record()["state"], runner.record()["id"]) == ("accepted", made["id"])
    assert outcome.xcoms["prediction_id"] == made["id"]
    assert runner.run(operator(), try_number=2).result == made["id"]


def test_a_signal_during_a_batch(comet: Emulator, runner: TaskRunner, signalled: None) -> None:
    """The create that was sent is recorded, nothing more is sent, and the next try buys what is missing."""
    three = batches.inputs("a", "b", "c")
    outcome = runner.run(batches.operator(three))
    assert type(outcome.error).__name__ == "AirflowTaskTimeout"
    assert batches.bought(comet) == ["a"]
    again = runner.run(batches.operator(three), try_number=2)
    assert batches.bought(comet) == ["a", "b", "c"]
    assert again.result == batches.ids(comet, ["a", "b", "c"])
