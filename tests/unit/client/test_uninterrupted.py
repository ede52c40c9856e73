"""``client/uninterrupted.py``: a call that goes on to its end although its caller is interrupted."""

from __future__ import annotations

import contextvars
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from airflow_provider_comet.client.uninterrupted import run_uninterrupted


class Interrupted(BaseException):
    """What the signal of these tests raises."""


@pytest.fixture
def handled() -> Iterator[threading.Event]:
    """SIGUSR1 raises ``Interrupted`` in the main thread, and the event is set."""
    event = threading.Event()

    def handle(number: int, frame: object) -> None:
        event.set()
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handle)
    yield event
    signal.signal(signal.SIGUSR1, before)


def never() -> None:
    raise AssertionError("nobody was interrupted")


def test_the_result_and_the_error_are_the_calls() -> None:
    """Whoever is not interrupted does not notice the thread."""
    assert run_uninterrupted(lambda: 7, never) == 7
    with pytest.raises(KeyError):
        run_uninterrupted(lambda: {}["a"], never)
    with pytest.raises(SystemExit):
        run_uninterrupted(lambda: exec("raise SystemExit"), never)


def test_it_has_the_callers_context() -> None:
    """Airflow and its logging keep things in context variables."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="")
    variable.set("of the task")
    assert run_uninterrupted(variable.get, never) == "of the task"


def test_an_interruption_waits_for_the_end(handled: threading.Event) -> None:
    """The call is told by ``on_interrupt``, ends by itself, and only then the interruption is raised."""
    ended: list[str] = []
    told = threading.Event()

    def call() -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert handled.wait(10)
        assert told.wait(10)
        ended.append("by itself")

    with pytest.raises(Interrupted):
        run_uninterrupted(call, told.set)
    assert ended == ["by itself"]


def test_in_another_thread_it_is_a_plain_call() -> None:
    """Signals do not reach other threads, so those need no thread more."""
    found: list[int] = []
    caller = threading.Thread(target=lambda: found.append(run_uninterrupted(threading.get_ident, never)))
    caller.start()
    caller.join()
    assert found == [caller.ident]
