"""The flag that keeps the creates of a task from sending anything more."""

from __future__ import annotations


class BatchStopped(Exception):
    """The batch was stopped, so this create was not sent."""


class StopFlag:
    """Says whether the creates of a task may still be sent. All of them share it, in all threads.

    It is only ever set. Plain attributes: a signal handler may set them.

    :ivar killed: Airflow is ending the task.
    :ivar stopped: the batch had an error that would meet its other inputs too.
    """

    def __init__(self) -> None:
        self.killed = False
        self.stopped = False
