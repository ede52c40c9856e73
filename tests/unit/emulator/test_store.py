from __future__ import annotations

import pytest

from airflow_provider_comet.emulator.catalog import CATALOG
from airflow_provider_comet.emulator.store import Store

SCHNELL = CATALOG["black-forest-labs/flux-schnell"]
T0 = 1_773_314_838.258


def test_created_within_a_second() -> None:
    """An accepted create counts for exactly the requested time."""
    now = [100.0]
    store = Store(clock=lambda: now[0])
    counts = []
    for now[0] in (100.0, 100.5, 101.0, 101.25, 103.0):
        counts.append(store.created_within(1.0))
        store.create(SCHNELL, {"prompt": "x"})
    assert counts == [0, 1, 1, 2, 0]


@pytest.mark.parametrize(("duration", "expected"), [(None, 1.5), (0.2, 0.2), (30, 30)])
def test_duration_overrides_the_models_own(duration: float | None, expected: float) -> None:
    """Without a duration each model takes its own time; with a duration all models take that."""
    prediction = Store(duration=duration, clock=lambda: T0).create(SCHNELL, {"prompt": "x"})
    assert prediction.completed - T0 == pytest.approx(expected, abs=1e-3)
    assert T0 < prediction.started < prediction.completed


def test_durations_of_a_range() -> None:
    """Predictions take different times of a range, and the nth one takes the same time in each run."""
    stores = [Store(duration=(5, 240), clock=lambda: T0) for _ in range(2)]
    first, again = ([store.create(SCHNELL, {"prompt": "x"}).completed - T0 for _ in range(50)] for store in stores)
    assert first == again
    assert 5 <= min(first) < 30
    assert 210 < max(first) <= 240


def test_outcomes_apply_in_order_to_new_predictions() -> None:
    """Each new prediction uses up one preset outcome, in order; later predictions are normal."""
    store = Store(duration=0, clock=lambda: T0)
    store.preset_outcome({"status": "failed"}, 2)
    store.preset_outcome({"status": "aborted"})
    assert [store.create(SCHNELL, {"prompt": "x"}).status(T0) for _ in range(4)] == [
        "failed",
        "failed",
        "aborted",
        "succeeded",
    ]


@pytest.mark.parametrize("count", [0, -1])
def test_outcome_count_must_be_positive(count: int) -> None:
    """An outcome for no prediction at all is refused."""
    with pytest.raises(ValueError, match="count"):
        Store().preset_outcome({"status": "failed"}, count)


def test_ledger_of_requests_is_bounded() -> None:
    """The ledger keeps a limited number of requests, so polling for days does not fill the memory."""
    assert Store().requests.maxlen == 100_000
