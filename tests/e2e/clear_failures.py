"""A user's clear after a failure, or a clear that looks like a retry: one function per behaviour."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_comet.submissions.record import FORCE
from tests.e2e.clear_run import RETRIES, Steps, Story
from tests.e2e.clear_scenarios import continuing_with
from tests.e2e.rest import FINISHED

LOWERED = "clear_lowered"
ONCE_MORE = "To buy a new one all the same, clear the task once more"
NO_ANSWER = "The create has no clear answer"
WAY_AGAIN = "If it was not accepted, clear the task"
WAY_KNOWN = (
    "If you know the prediction's id, set comet_submission in the task's state store to "
    '{"version": 1, "state": "accepted", "id": "<the id>"} and clear the task'
)


# After failure.


def after_rejection(it: Story) -> Steps:
    """Cleared after the API said no to the create (400): it is submitted, and paid for once."""
    yield from it.ends("failed")
    it.claim("tries until the failure", 1, it.tries)
    it.claim("record", ("rejected", None), (it.record().get("state"), it.record().get("id")))
    it.claim_log(1, "AirflowFailException", "CometAPI rejected the request (HTTP 400")
    yield from it.until("all have had their fault", lambda: it.world.finished(it.dag_id, it.task_id))
    it.clear()
    yield from it.ends("success")
    it.claim("creates", 1, len(it.creates()))
    it.claim_handed_over(it.creates())


def ambiguous(it: Story, request_id: bool) -> Steps:
    """The answer to an accepted create is lost: failed for good; the log names the request id and both ways on."""
    yield from it.ends("failed")
    it.claim("tries until the failure", 1, it.tries)
    it.claim("creates until the failure", 1, len(it.creates()))
    record = it.record()
    it.claim("record", ("sending", None), (record.get("state"), record.get("id")))
    it.claim("the record has a request id", request_id, bool(record.get("request_id")))
    it.claim_log(1, "AirflowFailException", NO_ANSWER, WAY_AGAIN, WAY_KNOWN)
    if request_id:
        it.claim_log(1, f"request id {record.get('request_id')}")
    yield from it.until("all have had their fault", lambda: it.world.finished(it.dag_id, it.task_id))


def ambiguous_submit_again(it: Story, request_id: bool = True) -> Steps:
    """Cleared after a lost answer: it submits again; the first id is unknown, so it can't be on record."""
    yield from ambiguous(it, request_id)
    it.clear()
    yield from it.ends("success")
    it.claim("creates", 2, len(it.creates()))
    it.claim("the new id is on record", it.creates()[-1], it.record().get("id"))
    it.claim("state, reason", ("delivered", "clear"), (it.record().get("state"), it.record().get("reason")))
    it.claim("the task's result", it.creates()[-1], it.result())


def ambiguous_known_id(it: Story, request_id: bool = True) -> Steps:
    """The lost id is put on record by hand, then cleared: success with that id, nothing is sent."""
    yield from ambiguous(it, request_id)
    ids = it.creates()
    it.put_record({"version": 1, "state": "accepted", "id": ids[0]})
    it.clear()
    yield from it.ends("success")
    it.claim_handed_over(ids)
    it.claim_log(2, continuing_with(ids[0]), FORCE)
    it.claim_not_in_log(2, "renders differently")


def after_refusal(it: Story, exact: bool = True) -> Steps:
    """The model refused the input: failed without a retry, as it would fail again; a clear buys a new prediction."""
    yield from it.paid(1)
    it.pin(it.creates()[0], "failed")
    yield from it.ends("failed")
    if exact:  # a deferred task may have lost tries to Airflow itself
        it.claim("tries until the failure", 1, it.tries)
    it.claim("creates until the failure", 1, len(it.creates()))
    it.claim_log(1, "AirflowFailException", "the model refused the input")
    it.clear()
    yield from it.paid(2)
    ids = it.creates()
    it.pin(ids[1])
    yield from it.ends("success")
    it.claim_handed_over(ids[:2], reason="clear", earlier=ids[:1])


# `retries` was lowered.


def lower_retries(dag_file: Path) -> None:
    before = dag_file.read_text()
    after = before.replace(f"RETRIES = {RETRIES}", f"RETRIES = {RETRIES - 1}")
    assert after != before, before
    dag_file.write_text(after)


def lowered(it: Story) -> Steps:
    """Lower `retries` in the DAG file so that the next clear leaves max_tries as it was, and clear."""
    yield from it.until("all have ended", lambda: it.world.finished(LOWERED) or it.world.done(f"edit {LOWERED}"))
    it.world.once(f"edit {LOWERED}", lambda: lower_retries(it.world.dags / f"{LOWERED}.py"))
    path = f"/api/v2/dags/{LOWERED}/tasks/{it.task_id}"
    yield from it.until("Airflow has the new retries", lambda: it.world.rest.send("GET", path)["retries"] < RETRIES)
    it.clear(run_on_latest_version=True)
    yield from it.until("ended", lambda: it.state in FINISHED and it.tries >= 2)
    it.claim("max_tries, by which the clear looks like a retry", RETRIES, it.instance["max_tries"])


def lowered_after_success(it: Story) -> Steps:
    """A clear that looks like a retry uses what was paid, and says to clear once more; that buys a new one."""
    yield from it.ends("success")
    yield from lowered(it)
    yield from it.ends("success")
    ids = it.creates()
    it.claim("creates after the first clear", 1, len(ids))
    it.claim_handed_over(ids)
    it.claim_log(2, continuing_with(ids[0]), ONCE_MORE)
    it.clear(run_on_latest_version=True)
    yield from it.ends("success")
    ids = it.creates()
    it.claim("creates after the second clear", 2, len(ids))
    it.claim_handed_over(ids, reason="clear", earlier=ids[:1])


def lowered_after_no_answer(it: Story) -> Steps:
    """A clear that looks like a retry does not submit again, and says to clear again; that submits."""
    yield from it.ends("failed")
    yield from lowered(it)
    yield from it.ends("failed")
    it.claim("creates after the first clear", 0, len(it.creates()))
    record = it.record()
    it.claim("record after the first clear", "sending", record.get("state"))
    it.claim_log(
        2,
        "AirflowFailException",
        NO_ANSWER,
        f"an attempt began to send it at {record.get('at')} for model stability-ai/sdxl",
        f"request id {record.get('request_id')}",
        "clear the task (again, if this error appears again)",
        WAY_KNOWN,
    )
    it.clear(run_on_latest_version=True)
    yield from it.ends("success")
    it.claim("creates after the second clear", 1, len(it.creates()))
    it.claim_handed_over(it.creates(), reason="clear")


# Paid, but not handed over.


def timed_out(it: Story) -> Steps:
    """Its wait ended before the prediction did."""
    yield from it.ends("failed")
    it.claim("tries until the timeout", 1, it.tries)
    it.claim("creates until the timeout", 1, len(it.creates()))
    it.claim("record", ("accepted", it.creates()[0]), (it.record().get("state"), it.record().get("id")))


def kept(it: Story) -> Steps:
    """Cleared after a timeout: it takes what was paid for, and says how to force a new one."""
    yield from timed_out(it)
    ids = it.creates()
    it.pin(ids[0])
    it.clear()
    yield from it.ends("success")
    it.claim_handed_over(ids)
    it.claim_log(2, continuing_with(ids[0]), FORCE)
    it.claim_not_in_log(2, "renders differently")


def changed_input(it: Story) -> Steps:
    """Cleared after a timeout, with another input now: it fails at no cost until the input is as it was."""
    yield from timed_out(it)
    ids = it.creates()
    it.pin(ids[0])
    it.set_note("value-of-the-note-after")
    it.clear()
    yield from it.ends("failed")
    it.claim("accepted creates", ids, it.creates())
    it.claim("record", ("accepted", ids[0]), (it.record().get("state"), it.record().get("id")))
    it.claim_log(2, f"Prediction {ids[0]}: it is paid for, but", "changed: input.note", FORCE)
    it.claim_not_in_log(2, "value-of-the-note")
    it.set_note("value-of-the-note-before")
    it.clear()
    yield from it.ends("success")
    it.claim_handed_over(ids)


def changed_while_running(it: Story) -> Steps:
    """Cleared while it waits, with another item in its place: mapped, it fails, although this may look like a retry."""
    yield from it.paid(1)
    yield from it.until("running", lambda: it.state == "running")
    ids = it.creates()
    it.set_note("value-of-the-note-after")
    it.clear()
    yield from it.ends("failed")
    it.pin(ids[0])
    it.claim("accepted creates", ids, it.creates())
    it.claim("the task's result", None, it.result())
    it.claim_log(2, f"Prediction {ids[0]}: it is paid for, but", "changed: input.note", FORCE)


def record_deleted(it: Story) -> Steps:
    """The record is deleted after a timeout, then cleared: a new prediction is bought although one was not used."""
    yield from timed_out(it)
    it.delete_record()
    it.clear()
    yield from it.paid(2)
    ids = it.creates()
    it.pin(ids[1])
    yield from it.ends("success")
    it.claim_handed_over(ids)
