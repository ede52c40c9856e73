"""Why a task may fail: what really happened to it, which the product does not always know.

An attempt that fails without any of these causes has given something up: a wait has ended because of trouble that may
pass, or a result that is there was not handed over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.simulation.answers import GETS

if TYPE_CHECKING:
    from tests.simulation.comet import Prediction
    from tests.simulation.database import TaskInstance
    from tests.simulation.worker import Attempt
    from tests.simulation.world import World

AROUND_SECONDS = 1_000.0
"""What happened so long before a try began may still be felt in it: a store is waited for for five minutes."""
WHATEVER = ("server_away", "connection_away", "key_replaced", "clock_set", "store_answer_lost")
"""After these any task may fail, for a time."""
LAST_POLL_SECONDS = 2.0
"""A prediction that ends so shortly before the deadline may end after the last poll."""


def causes(world: World, attempt: Attempt) -> list[str]:
    """Return why an attempt may have failed."""
    row = attempt.row
    since = row.started_at
    found = [label for time, label in world.happened if time >= since - AROUND_SECONDS and label in WHATEVER]
    found += [f"struck: {label}" for label in attempt.struck]
    if attempt.id != row.id:
        found.append("replaced")
    if row.task_id == "create":
        found += _of_create(world, row, since)
        if world.cast.waits:
            bought = [made for made in world.predictions_of(row) if not made.is_late]
            found += _of_wait(world, row, bought[-1:], since)
    elif row.task_id == "wait":
        found += _of_wait(world, row, _given(world, attempt.operator.prediction_id, found), since)
    else:
        given = _given(world, attempt.operator.prediction, found)
        found += [f"file {label}" for _, label in _since(world.storage.failures, since)]
        for prediction in given:
            if not world.cast.store_waits:  # what has finished is read again for two minutes, and not until a deadline
                found += [f"poll {label}" for _, label in _since(prediction.faults, since)]
            found += of_item(world, attempt, prediction.id)
    return found


def of_item(world: World, attempt: Attempt, prediction_id: str) -> list[str]:
    """Return why a prediction may not have been stored, of a list whose others are."""
    prediction, since = world.api.predictions[prediction_id], attempt.began_at
    found = [f"download {label}" for _, label in _since(world.downloads, since) if label.endswith(prediction_id)]
    found += [label for _, label in _since(world.happened, since) if label == "clock_set"]  # the time may be up
    return found + _of_wait(world, attempt.row, [prediction], since)


def _of_create(world: World, row: TaskInstance, since: float) -> list[str]:
    found = [f"post {label}" for label in world.api.faults.get(row.name, ())]
    found += ["changed inputs"] if any(label == "change_inputs" for _, label in world.happened) else []
    if any(state == "sending" for state in world.invariants.states(row)):
        found.append("nobody knows what became of a create")
    return found


def _of_wait(world: World, row: TaskInstance, predictions: list[Prediction], since: float) -> list[str]:
    found: list[str] = []
    options = world.cast.options
    limits = [options["timeout"], *([options["execution_timeout"]] if options["execution_timeout"] else [])]
    deadline = (row.first_rescheduled_at or since) + min(limits)
    for prediction in predictions:
        faults = _since(prediction.faults, since)
        found += [f"poll {label}" for _, label in faults if not GETS[label].passes]
        found += _bad_end(world, prediction) or _expired(world, prediction)
        is_hidden = any(time >= prediction.ended_at for time, _ in faults)
        if world.kernel.now >= deadline and (prediction.ended_at > deadline - LAST_POLL_SECONDS or is_hidden):
            found.append("the time is up")
        is_told_late = prediction.told_at is not None and prediction.told_at > deadline - LAST_POLL_SECONDS
        if row.task_id == "store" and is_told_late and options["execution_timeout"]:
            found.append("the time is up before it is stored")
    return found


def _bad_end(world: World, prediction: Prediction) -> list[str]:
    has_ended = prediction.ended_at <= world.kernel.now
    return [f"{prediction.id} has ended badly: {prediction.end}"] if has_ended and prediction.is_bad else []


def _expired(world: World, prediction: Prediction) -> list[str]:
    is_expired = world.kernel.now > prediction.ended_at and not world.api.delivers(prediction)
    return [f"{prediction.id} has expired"] if is_expired else []


def _given(world: World, value: Any, found: list[str]) -> list[Prediction]:
    """Return the predictions that a task was given; what it was not given is a cause."""
    values = value if isinstance(value, list) else [value]
    ids = [one["id"] if isinstance(one, dict) else one for one in values]
    known = [world.api.predictions[one] for one in ids if one in world.api.predictions]
    if len(known) < len(ids) or not ids:
        found.append("it was given no prediction")
    return known


def _since(events: Any, time: float) -> list[tuple[float, str]]:
    return [event for event in events if event[0] >= time - AROUND_SECONDS]
