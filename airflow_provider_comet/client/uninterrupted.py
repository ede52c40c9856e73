"""Calls that run to their end although the task is interrupted."""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from typing import TypeVar

from airflow_provider_comet.polling import threads

T = TypeVar("T")


def run_uninterrupted(call: Callable[[], T], on_interrupt: Callable[[], object]) -> T:
    """Make a call in a thread of its own, wait for its end whatever happens meanwhile, and return its result.

    Python delivers signals to the main thread, at any line. Airflow's task timeout is such a signal. Between the answer
    to a create and its record no exception may come from outside: the id of something paid would be lost.

    :param call: has to end by itself.
    :param on_interrupt: is called if the main thread is interrupted before the call has ended. The interruption is
        raised after the end of the call.
    """
    if not threads.is_main():
        return call()
    future: threads.Future[T] = threads.Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = call()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)

    try:
        # With the context of the caller: what Airflow and its logging keep there.
        threads.start(functools.partial(contextvars.copy_context().run, run), "comet-create")
        return future.result()
    finally:
        if not future.cancel():  # it was begun; a call that was not begun is not made any more
            if not future.done():
                on_interrupt()
            threads.wait([future])
