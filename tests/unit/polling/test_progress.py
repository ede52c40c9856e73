"""``polling/progress.py``: what the log says while a task waits, for one prediction and for many."""

from __future__ import annotations

import itertools
import logging

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.polling.progress import MIN_SECONDS_BETWEEN_COUNTS, LogLine, Progress
from airflow_provider_comet.polling.schedule import HEARTBEAT_SECONDS
from airflow_provider_comet.polling.wait import Wait

ID = "p0"


def new_waits(count: int, deadline: float = 3600.0) -> list[Wait]:
    """Return so many waits that began at 0."""
    return [Wait(f"p{n}", 0.0, deadline) for n in range(count)]


def result_of(wait: Wait, status: str = "processing") -> Prediction:
    """Return a prediction as a poll finds it."""
    return Prediction(wait.prediction_id, status)


# One prediction


def test_each_change_of_status_is_logged_once() -> None:
    """Each change of status is a line, and a status that stays is none."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    statuses = ["starting", "starting", "processing", "processing", "succeeded", "starting"]
    assert [progress.on_result(wait, result_of(wait, status), 1.0) for status in statuses] == [
        [(logging.INFO, f"Prediction {ID}: status 'starting'")],
        [],
        [(logging.INFO, f"Prediction {ID}: status 'processing'")],
        [],
        [(logging.INFO, f"Prediction {ID}: status 'succeeded'")],
        [(logging.INFO, f"Prediction {ID}: status 'starting'")],
    ]


def test_trouble_is_logged_once() -> None:
    """An error is logged when it begins and when it is over, not at every poll; another request id is no change."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    first = e.ServerError("bad gateway", status=502, request_id="r1", prediction_id=ID)
    second = e.ServerError("bad gateway", status=502, request_id="r2", prediction_id=ID)
    for error in (first, second):
        ((level, text),) = progress.on_result(wait, error, 1.0)
        assert level == logging.WARNING
        assert str(error) in text
        assert progress.on_result(wait, first, 1.0) == []
        assert progress.on_result(wait, second, 1.0) == []
        recovered = progress.on_result(wait, result_of(wait, "starting"), 1.0)
        assert recovered == [(logging.INFO, f"Prediction {ID}: status 'starting'")]


def test_an_odd_answer_about_a_known_prediction_is_a_warning() -> None:
    """The warning says that such an answer alone does not end the wait, unless nobody has seen the prediction."""
    (wait,) = new_waits(1)
    hint = "The prediction is known: such an answer alone does not end the wait."
    page = e.WrongURLError("a web page came back", status=200, prediction_id=ID)
    assert Progress([wait]).on_result(wait, page, 1.0) == [(logging.WARNING, str(page))]
    wait.is_known = True
    progress = Progress([wait])
    assert progress.on_result(wait, page, 1.0) == [(logging.WARNING, f"{page} {hint}")]
    assert progress.on_result(wait, page, 2.0) == []
    refused = e.AuthenticationError(status=401, prediction_id=ID)
    assert progress.on_result(wait, refused, 3.0) == [(logging.WARNING, str(refused))]


def test_a_success_without_output_is_a_warning() -> None:
    """If a task says it has succeeded without output, the log says once what came."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    assert progress.on_result(wait, result_of(wait), 1.0) != []
    words = "the task says SUCCESS, its data is null"
    claim = Prediction(ID, "processing", missing_output=words)
    text = f"Prediction {ID}: status 'processing': {words}; its output may be late"
    assert progress.on_result(wait, claim, 2.0) == [(logging.WARNING, text)]
    assert progress.on_result(wait, claim, 3.0) == []


def test_an_unknown_status_is_logged() -> None:
    """A status that is not known is a warning that says so, once."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    ((level, text),) = progress.on_result(wait, result_of(wait, "Teleporting"), 1.0)
    assert level == logging.WARNING
    assert "'Teleporting'" in text
    assert "unknown" in text
    assert progress.on_result(wait, result_of(wait, "Teleporting"), 1.0) == []


def test_a_heartbeat_every_five_minutes() -> None:
    """A day without changes has a line every five minutes, with the status, the time so far and the time left."""
    (wait,) = new_waits(1, deadline=86_400.0)
    progress = Progress([wait])
    logged: list[tuple[int, LogLine]] = []
    for now in range(0, 86_400, 60):
        logged += [(now, line) for line in progress.on_result(wait, result_of(wait), float(now))]
        wait.on_result(result_of(wait), now=float(now), chance=0.5)
    assert [now for now, _ in logged] == list(range(0, 86_400, int(HEARTBEAT_SECONDS)))
    assert {level for _, (level, _) in logged} == {logging.INFO}
    now, (_, text) = logged[2]
    assert "still status 'processing'" in text
    assert f"after {now} s and {now // 60} polls" in text
    assert f"the timeout comes in {86_400 - now} s" in text


def test_trouble_that_stays_is_one_warning() -> None:
    """The first line is a warning, the heartbeats after it are not."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    logged = [
        line for now in range(0, 1200, 10) for line in progress.on_result(wait, e.ServerError(status=502), float(now))
    ]
    assert [level for level, _ in logged] == [logging.WARNING, *[logging.INFO] * 3]


def test_a_heartbeat_between_two_polls() -> None:
    """A wait that sleeps for long has the same line, without a poll, and not more often than every five minutes."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    progress.on_result(wait, result_of(wait), 0.0)
    assert progress.heartbeat(wait, HEARTBEAT_SECONDS - 1) == []
    ((level, text),) = progress.heartbeat(wait, HEARTBEAT_SECONDS)
    assert (level, "still status 'processing' after 300 s" in text) == (logging.INFO, True)
    assert progress.heartbeat(wait, HEARTBEAT_SECONDS + 1) == []


def test_a_single_wait_has_no_counts() -> None:
    """A task that waits for one prediction logs its status, not how many have finished."""
    (wait,) = new_waits(1)
    progress = Progress([wait])
    assert progress.on_result(wait, result_of(wait), 0.0) == [(logging.INFO, "Prediction p0: status 'processing'")]
    assert progress.on_result(wait, result_of(wait), 1.0) == []


# Many predictions


def test_the_first_line_counts_all() -> None:
    """Nothing is logged about a list before each prediction has been polled."""
    waits = new_waits(3)
    progress = Progress(waits)
    assert progress.on_result(waits[0], result_of(waits[0]), 1.0) == []
    assert progress.on_result(waits[0], result_of(waits[0]), 50.0) == []
    assert progress.on_result(waits[1], result_of(waits[1], "starting"), 51.0) == []
    assert progress.on_result(waits[2], result_of(waits[2], "succeeded"), 60.0) == [
        (
            logging.INFO,
            "1 of 3 predictions have finished (1 processing, 1 starting, 1 succeeded); the timeout comes in 3540 s",
        )
    ]


def test_changes_are_logged_together() -> None:
    """Changes within ten seconds are one line; without a change there is a line every five minutes."""
    waits = new_waits(1000)
    progress = Progress(waits)
    for wait in waits:
        progress.on_result(wait, result_of(wait), 0.0)
    lines = [
        line
        for n, wait in enumerate(waits[:500])
        for line in progress.on_result(wait, result_of(wait, "succeeded"), 100.0 + n / 10)
    ]
    assert len(lines) == 50 / MIN_SECONDS_BETWEEN_COUNTS
    assert "401 of 1,000 predictions have finished (599 processing, 401 succeeded)" in lines[-1][1]
    last = waits[999]
    quiet = [now for now in range(150, 3600, 10) for _ in progress.on_result(last, result_of(last), float(now))]
    assert quiet[0] == 150  # the changes since the last line
    assert [later - earlier for earlier, later in itertools.pairwise(quiet)] == [HEARTBEAT_SECONDS] * (len(quiet) - 1)


def test_the_last_line_counts_all() -> None:
    """That all have finished is logged at once."""
    waits = new_waits(2)
    progress = Progress(waits)
    for wait in waits:
        progress.on_result(wait, result_of(wait), 0.0)
    assert progress.on_result(waits[0], result_of(waits[0], "succeeded"), 1.0) == []
    ((_, text),) = progress.on_result(waits[1], result_of(waits[1], "failed"), 1.5)
    assert text.startswith("2 of 2 predictions have finished (1 succeeded, 1 failed)")


def test_each_kind_of_trouble_is_one_warning() -> None:
    """Hundreds that fail in the same way are one warning, which names one of them, and a heartbeat later."""
    waits = new_waits(300)
    progress = Progress(waits)

    def lines_for(error: e.CometError, now: float) -> list[LogLine]:
        lines = [line for wait in waits for line in progress.on_result(wait, error.about(wait.prediction_id), now)]
        return [line for line in lines if "predictions have finished" not in line[1]]

    ((level, text),) = lines_for(e.ServerError("bad gateway", status=502), 0.0)
    assert level == logging.WARNING
    assert text.startswith("Prediction p0: CometAPI failed for now (HTTP 502): bad gateway.")
    assert lines_for(e.ServerError("bad gateway", status=502), HEARTBEAT_SECONDS - 1) == []
    ((level, _),) = lines_for(e.AuthenticationError(status=401), 100.0)
    assert level == logging.WARNING
    ((level, _),) = lines_for(e.ServerError("bad gateway", status=502), HEARTBEAT_SECONDS)
    assert level == logging.INFO


def test_an_unknown_status_is_logged_once_for_all() -> None:
    """A status that is not known is a warning, once for all predictions that have it."""
    waits = new_waits(5)
    progress = Progress(waits)
    lines = [line for wait in waits for line in progress.on_result(wait, result_of(wait, "Teleporting"), 0.0)]
    assert [text for level, text in lines if level == logging.WARNING] == [
        "Prediction p0: status 'Teleporting' is unknown here; it counts as still running (Others may have the same.)"
    ]


def test_a_heartbeat_of_many() -> None:
    """A list has one heartbeat, with the counts, whichever of its waits sleeps; none before the first line."""
    waits = new_waits(2)
    progress = Progress(waits)
    assert progress.heartbeat(waits[0], 1000.0) == []
    for wait in waits:
        progress.on_result(wait, result_of(wait), 1000.0)
    assert progress.heartbeat(waits[0], 1299.0) == []
    ((level, text),) = progress.heartbeat(waits[1], 1300.0)
    assert (level, text.startswith("0 of 2 predictions have finished (2 processing)")) == (logging.INFO, True)
    assert progress.heartbeat(waits[0], 1301.0) == []


# The rest of a list, after others have ended


def test_what_has_ended_before_counts() -> None:
    """The lines are about the whole list, however many of it have ended before these waits began."""
    waits = new_waits(2)
    progress = Progress(waits, ended_before=998)
    assert progress.on_result(waits[0], result_of(waits[0]), 0.0) == []
    ((_, text),) = progress.on_result(waits[1], result_of(waits[1]), 0.0)
    assert text.startswith("998 of 1,000 predictions have finished (2 processing, 998 before)")
    progress.on_result(waits[0], result_of(waits[0], "succeeded"), 1.0)
    ((_, text),) = progress.on_result(waits[1], result_of(waits[1], "succeeded"), 1.5)
    assert text.startswith("1,000 of 1,000 predictions have finished (2 succeeded, 998 before)")


def test_the_last_of_a_list_is_counted_like_the_others() -> None:
    """If one prediction is left of a list, the log does not turn to lines about a single prediction."""
    (wait,) = new_waits(1)
    progress = Progress([wait], ended_before=2)
    assert progress.on_result(wait, result_of(wait), 0.0) == [
        (logging.INFO, "2 of 3 predictions have finished (1 processing, 2 before); the timeout comes in 3600 s")
    ]
    assert progress.on_result(wait, result_of(wait), 1.0) == []
    assert progress.heartbeat(wait, HEARTBEAT_SECONDS) == [
        (logging.INFO, "2 of 3 predictions have finished (1 processing, 2 before); the timeout comes in 3300 s")
    ]
    ((_, text),) = progress.on_result(wait, result_of(wait, "succeeded"), HEARTBEAT_SECONDS + 1)
    assert text.startswith("3 of 3 predictions have finished (1 succeeded, 2 before)")


def test_trouble_with_the_last_of_a_list_is_a_warning() -> None:
    """It is logged once, as trouble of a list is."""
    (wait,) = new_waits(1)
    progress = Progress([wait], ended_before=2)
    error = e.ServerError("bad gateway", status=502, prediction_id=ID)
    warnings = [line for now in (0.0, 1.0) for line in progress.on_result(wait, error, now) if line[0] > logging.INFO]
    assert warnings == [(logging.WARNING, f"{error} (Others may have the same.)")]
