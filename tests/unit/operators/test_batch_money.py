"""``CreatePredictionBatchOperator``: attempts that could pay twice, lose what was paid for, or get stuck."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_comet.api.errors import RateLimitedError
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.submissions.submission import Submission
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.submissions.batches import SCHEMA, bought, ids, inputs, lose, operator, refuse


@contextmanager
def xcom_away(runner: TaskRunner, key: str) -> Iterator[None]:
    """One XCom can't be pushed, so that the task fails after it has bought all."""
    original = runner._xcom

    def away(request: httpx.Request, name: str, is_slice: bool, body: Any) -> httpx.Response:
        if request.method == "POST" and name.endswith(key):
            return httpx.Response(422, json={"detail": "the API server has other problems"})
        return original(request, name, is_slice, body)

    runner._xcom = away  # type: ignore[method-assign]
    yield
    runner._xcom = original  # type: ignore[method-assign]


def test_bought_after_a_hand_over_in_the_same_cycle(comet: Emulator, runner: TaskRunner) -> None:
    """A list was handed over, then the end of the task failed; the retry bought more and failed. A clear buys again
    what was handed over, and nothing else."""
    assert runner.run(operator(inputs("a"))).state == "success"
    refuse(comet)
    assert runner.run(operator(inputs("bad", "a", "new")), try_number=2).state == "failed"
    runner.run(operator(inputs("bad", "a", "new")), try_number=3, max_tries=3)
    assert bought(comet) == ["a", "new", "bad", "a"]


def test_a_number_of_tries_that_comes_again(comet: Emulator, runner: TaskRunner) -> None:
    """With ``retries`` lowered, a clear brings back a ``max_tries`` that was there before."""
    assert runner.run(operator(inputs("a"))).state == "success"
    for attempt, max_tries in ((2, 3), (3, 2), (4, 3)):
        refuse(comet)
        assert runner.run(operator(inputs("bad", "n")), try_number=attempt, max_tries=max_tries).state == "failed"
    assert bought(comet) == ["a", "n"]


def test_lists_that_were_handed_over_one_after_the_other(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each is remembered: a clear buys all of them again, and calls none lost."""
    caplog.set_level("INFO")
    runner.run(operator(inputs("a")))
    runner.run(operator(inputs("b")), try_number=2, max_tries=3)
    runner.run(operator(inputs("a", "b")), try_number=3, max_tries=4)
    assert bought(comet) == ["a", "b", "a", "b"]
    assert "never handed over" not in caplog.text + "".join(capfd.readouterr())


def test_fewer_equal_inputs(comet: Emulator, runner: TaskRunner) -> None:
    """Of three the first was refused: a list of two uses the two that are paid for."""
    refuse(comet)
    assert runner.run(operator(inputs("a", "a", "a"))).state == "failed"
    assert runner.run(operator(inputs("a", "a")), try_number=2, max_tries=3).state == "success"
    assert bought(comet) == ["a", "a"]


def test_fewer_equal_inputs_of_which_one_is_open(comet: Emulator, runner: TaskRunner) -> None:
    """The paid prediction is used; nobody has to care about the other."""
    lose(comet)
    assert runner.run(operator(inputs("a", "a"))).state == "failed"
    assert runner.run(operator(inputs("a")), try_number=2).state == "success"


def test_inputs_that_are_others_at_each_try(comet: Emulator, runner: TaskRunner) -> None:
    """A random seed would buy everything again at each automatic retry: it fails and says so. A clear buys."""

    def random_inputs() -> list[dict[str, Any]]:
        return [{"prompt": prompt, "seed": random.randrange(10**9)} for prompt in "abc"]

    with xcom_away(runner, "rejected"):
        assert runner.run(operator(random_inputs())).state == "up_for_retry"
    again = runner.run(operator(random_inputs()), try_number=2)
    assert (again.state, type(again.error).__name__) == ("failed", "AirflowFailException")
    assert "do they render differently at each try" in again.message
    assert bought(comet) == ["a", "b", "c"]
    assert runner.run(operator(random_inputs()), try_number=3, max_tries=3).state == "success"
    assert bought(comet) == ["a", "b", "c"] * 2


def limit(comet: Emulator, runner: TaskRunner, batch_inputs: list[dict[str, Any]], **options: Any) -> None:
    """A try that a rate limit ends after the first create."""
    accept = Submission.accepted

    def then_limited(submission: Submission, prediction_id: str) -> None:
        accept(submission, prediction_id)
        comet.fault(method="POST", status=429, count=None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Submission, "accepted", then_limited)
        assert runner.run(operator(batch_inputs), **options).state == "up_for_retry"
    comet.clear_faults()


@pytest.mark.parametrize(
    ("first", "new"),
    [(["bad", "a"], ["b", "c", "d"]), (["bad", "b", "b"], ["c", "d"])],
    ids=["another", "fewer equal ones"],
)
def test_a_retry_after_a_clear_with_another_list(
    comet: Emulator, runner: TaskRunner, clock: Clock, first: list[str], new: list[str]
) -> None:
    """What the user dropped before the clear says nothing about the tries after it: they submit what is missing."""
    refuse(comet)
    assert runner.run(operator(inputs(*first))).state == "failed"
    limit(comet, runner, inputs("c", "b", "d"), try_number=2, max_tries=3)
    assert runner.run(operator(inputs("c", "b", "d")), try_number=3, max_tries=3).state == "success"
    assert sorted(bought(comet)) == sorted([*first[1:], *new])


@pytest.mark.parametrize("cleared", [False, True])
def test_other_inputs_after_the_hand_over(
    comet: Emulator,
    runner: TaskRunner,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    cleared: bool,
) -> None:
    """Killed in the moment before success, an automatic retry must not buy a list that is different each time. XCom
    was emptied by then: the log has the ids."""
    assert runner.run(operator(inputs("a", "b"))).state == "success"
    again = runner.run(operator(inputs("c", "d")), try_number=2, max_tries=3 if cleared else 2)
    assert again.state == ("success" if cleared else "failed")
    assert ("do they render differently at each try" in again.message) is not cleared
    assert bought(comet) == (["a", "b", "c", "d"] if cleared else ["a", "b"])
    said = caplog.text + "".join(capfd.readouterr())
    for prediction_id in ids(comet, ["a", "b"]):
        assert (f"Prediction {prediction_id} was handed over" in said) is not cleared


def test_an_id_that_is_known_is_never_bought_again(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The store went away after one input was paid: its id is named and in XCom, and no automatic retry follows, even
    with a policy that risks creates of unknown fate."""
    writes = 0

    def see(method: str, value: Any) -> int:
        nonlocal writes
        writes += method == "PUT" and "state" in value
        return 422 if method == "PUT" and writes > 1 else 200

    runner.on_store = see
    outcome = runner.run(operator(inputs("a", "b"), max_in_flight=2, on_ambiguous_submit="retry"))
    (made,) = comet.ledger()["creates"]
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert made["id"] in outcome.message
    assert made["id"] in outcome.xcoms["created"]


def test_a_slow_limit_does_not_end_a_batch_that_goes_on(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create that was limited for its whole budget is tried again if others were accepted meanwhile."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    original, others_go_on, limited = CometReplicateHook.create_prediction, threading.Event(), []

    def create(hook: Any, model: str, input: dict[str, Any], **options: Any) -> Any:
        if input["prompt"] == "b" and not limited:
            limited.append(True)
            assert others_go_on.wait(30)
            raise RateLimitedError("for two minutes")
        if input["prompt"] == "c":  # its turn comes when "a" is done
            others_go_on.set()
        return original(hook, model, input, **options)

    monkeypatch.setattr(CometReplicateHook, "create_prediction", create)
    outcome = runner.run(operator(inputs("a", "b", "c"), max_in_flight=2))
    assert limited
    assert (outcome.state, sorted(bought(comet))) == ("success", ["a", "b", "c"])


def test_what_is_stopped_is_not_sent_after_its_pause(comet: Emulator, runner: TaskRunner) -> None:
    """Those who wait for a rate limit to pass when the batch is stopped send nothing any more, and do not wait on."""
    comet.fault(method="POST", status=429, headers={"Retry-After": "0.3"}, count=8)
    lose(comet, 50)
    outcome = runner.run(operator(inputs(*map(str, range(50))), max_in_flight=8))
    assert outcome.state == "failed"
    assert comet.ledger()["accepted"] <= 3


def test_a_kill_before_there_is_anything_to_send(
    comet: Emulator, runner: TaskRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal may come while the inputs are read: nothing is bought afterwards."""
    from airflow_provider_comet.operators.batch import CreatePredictionBatchOperator

    original = CreatePredictionBatchOperator._read_inputs

    def kill_then_read(task: Any, context: Any) -> Any:
        task.on_kill()
        return original(task, context)

    monkeypatch.setattr(CreatePredictionBatchOperator, "_read_inputs", kill_then_read)
    assert runner.run(operator(inputs("a", "b"))).state == "up_for_retry"
    assert bought(comet) == []


def test_a_kill_while_the_store_is_away(comet: Emulator, runner: TaskRunner, clock: Clock) -> None:
    """The intent may take minutes to be written: the task may be killed meanwhile, and then nothing is sent."""
    is_down = True

    def kill(seconds: float) -> None:
        nonlocal is_down
        runner.running.on_kill()
        is_down = False

    runner.on_store = lambda method, value: 422 if is_down and method == "PUT" and "state" in value else 200
    clock.on_sleep = kill
    assert runner.run(operator(inputs("a", "b"))).state == "up_for_retry"
    assert bought(comet) == []
    clock.on_sleep = lambda seconds: None
    assert runner.run(operator(inputs("a", "b")), try_number=2).state == "success"


def test_what_is_paid_for_needs_no_schema(comet: Emulator, runner: TaskRunner, tmp_path: Path) -> None:
    """A schema that is gone keeps no paid list from its task."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    refuse(comet)
    runner.run(operator(inputs("bad", "a"), input_schema=str(schema)))
    schema.unlink()
    assert runner.run(operator(inputs("a"), input_schema=str(schema)), try_number=2, max_tries=3).state == "success"


def test_a_record_that_cannot_be_read_is_named(comet: Emulator, runner: TaskRunner) -> None:
    """One among a thousand: the error says which; and it is in nobody's way once its input is gone."""
    refuse(comet)
    runner.run(operator(inputs("bad", "a")))
    (name,) = (name for name, value in runner.store.items() if value.get("state") == "accepted")
    runner.store[name] = {"version": 1, "state": "accepted"}
    outcome = runner.run(operator(inputs("bad", "a")), try_number=2, max_tries=3)
    assert name.rpartition("/")[2] in outcome.message
    assert runner.run(operator(inputs("c")), try_number=3, max_tries=4).state == "success"


def test_all_reasons_are_told(
    comet: Emulator, runner: TaskRunner, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Those that a long message leaves out are in the log, also of inputs that were not sent."""
    outcome = runner.run(operator([{"prompt": number} for number in range(60)], input_schema=SCHEMA))
    said = outcome.message + caplog.text + "".join(capfd.readouterr())
    assert all(f'inputs[{number}] {{"prompt": {number}}}' in said for number in range(60))
    assert all(item["record"].startswith("comet_submission.") for item in outcome.xcoms["rejected"])


# ---------------------------------------------------------------------------------------------------------------------
# Airflow before 3.3


def test_without_a_record_a_lost_answer_is_final(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None
) -> None:
    """A rate limit beside it does not make a retry of it, which would send the lost create again."""
    lose(comet)
    comet.fault(method="POST", status=429, count=None)
    outcome = runner.run(operator(inputs("a", "b")))
    assert (outcome.state, bought(comet)) == ("failed", ["a"])


def test_without_a_record_any_end_is_final(
    comet: Emulator, runner: TaskRunner, clock: Clock, no_store: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends a batch of which something was bought: a retry would buy all of it again. XCom has the ids."""
    with xcom_away(runner, "rejected"):
        outcome = runner.run(operator(inputs("a", "b")))
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert "keeps no record" in outcome.message
    assert outcome.xcoms["created"] == ids(comet, ["a", "b"])
