"""``submissions/stop_flag.py``: one flag for all creates of a task."""

from __future__ import annotations

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.submissions.batch import Batch
from airflow_provider_comet.submissions.stop_flag import StopFlag

MODEL = "black-forest-labs/flux-schnell"


def test_each_task_has_a_flag_of_its_own() -> None:
    """Creates may be sent until the flag is set, and two batches do not stop each other."""
    first, second = Batch.of(MODEL, [{"prompt": "a"}]), Batch.of(MODEL, [{"prompt": "a"}])
    first.failed(first.items[0], e.AuthenticationError("no"))
    assert (first.stop.killed, first.stop.stopped) == (False, True)
    assert (second.stop.killed, second.stop.stopped) == (False, False)


@pytest.mark.parametrize(("error", "stopped"), [(e.BadRequestError("no"), False), (e.TransportError("no"), True)])
def test_a_batch_sets_the_flag_that_its_creates_read(error: e.CometError, stopped: bool) -> None:
    """An error that concerns all inputs stops the creates, and is no kill."""
    stop = StopFlag()
    batch = Batch.of(MODEL, [{"prompt": "a"}], stop)
    batch.failed(batch.items[0], error)
    assert (stop.stopped, stop.killed) == (stopped, False)
