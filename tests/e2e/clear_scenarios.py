"""A user's clear of a task that waits or has succeeded: one function per behaviour of one task instance."""

from __future__ import annotations

from airflow_provider_comet.airflow_errors import STILL_RUNNING
from airflow_provider_comet.submissions.record import FORCE
from tests.e2e.clear_run import RETRIES, Steps, Story


def continuing_with(prediction_id: str) -> str:
    return f"Continuing with prediction {prediction_id}"


# While it waits.


def while_running(it: Story) -> Steps:
    """Cleared while its worker waits: the next attempt uses the same prediction; the killed attempt names it."""
    yield from it.paid(1)
    yield from it.until("running", lambda: it.state == "running")
    ids = it.creates()
    it.clear()
    # The killed process may live for some seconds: it must not be the one that hands over.
    yield from it.runs_again("running")
    it.pin(ids[0])
    yield from it.ends("success")
    it.claim_handed_over(ids[:1])
    it.claim_log(1, STILL_RUNNING % ids[0])
    it.claim_log(2, continuing_with(ids[0]), FORCE)


def while_deferred(it: Story) -> Steps:
    """Cleared while the triggerer waits: the next attempt continues with the same prediction."""
    yield from it.paid(1)
    yield from it.until("deferred", lambda: it.state == "deferred")
    ids = it.creates()
    # A trigger that is killed before it has begun says nothing.
    yield from it.until("the trigger has polled", lambda: f"Prediction {ids[0]}: status" in it.log(1))
    it.clear()
    yield from it.runs_again("deferred")
    it.pin(ids[0])
    yield from it.ends("success")
    it.claim_handed_over(ids[:1])
    it.claim_log(2, continuing_with(ids[0]), FORCE)


def says_what_goes_on(it: Story) -> bool:
    """Whether the wait that was killed in the triggerer has named the prediction."""
    return it.name == "while_deferred" and STILL_RUNNING % it.creates()[0] in it.log(1)


# After success.


def after_success(it: Story) -> Steps:
    """Cleared after it handed over: each clear buys exactly one new prediction, and the record keeps the old ids."""
    yield from it.ends("success")
    it.claim_handed_over(it.creates()[:1])
    for count in (2, 3):
        it.clear()
        yield from it.ends("success")
        ids = it.creates()
        it.claim("creates so far", count, len(ids))
        it.claim_handed_over(ids, reason="clear", earlier=ids[:-1])


def after_waited_success(it: Story) -> Steps:
    """Cleared after it waited and handed over: a new prediction is bought and waited for."""
    yield from it.paid(1)
    it.pin(it.creates()[0])
    yield from it.ends("success")
    it.claim_handed_over(it.creates()[:1])
    it.clear()
    yield from it.paid(2)
    ids = it.creates()
    it.pin(ids[1])
    yield from it.ends("success")
    it.claim_handed_over(ids[:2], reason="clear", earlier=ids[:1])


# Twice.


def claim_never_lost(it: Story) -> None:
    """The clears bought at least one and at most one each; every id that was paid for is on record, in order."""
    ids = it.creates()
    it.claim(f"{len(ids) - 1} new creates after {it.clears} clears are right", True, 1 <= len(ids) - 1 <= it.clears)
    it.claim_handed_over(ids, reason="clear", earlier=ids[:-1])


def twice_at_once(it: Story) -> Steps:
    """Cleared twice at once: no more than one new prediction per clear, usually one in all."""
    yield from it.ends("success")
    it.clear()
    it.clear()
    yield from it.ends("success")
    claim_never_lost(it)


def twice_in_queue(it: Story) -> Steps:
    """Cleared again as soon as the re-run is in the queue or running: no more than one new one per clear."""
    yield from it.ends("success")
    it.clear()
    yield from it.until("on its way", lambda: it.tries > 1)
    it.clear()
    yield from it.ends("success")
    claim_never_lost(it)


def twice_while_running(it: Story) -> Steps:
    """Cleared again while the re-run waits for what it bought: it continues with that one."""
    yield from it.paid(1)
    it.pin(it.creates()[0])
    yield from it.ends("success")
    it.clear()
    yield from it.paid(2)
    yield from it.until("running", lambda: it.state == "running")
    ids = it.creates()
    it.clear()
    yield from it.runs_again("running")
    it.pin(ids[1])
    yield from it.ends("success")
    it.claim("creates", 2, len(ids))
    it.claim_handed_over(ids, reason="clear", earlier=ids[:1])


# The whole run, and those that nobody clears.


def whole_run(it: Story, waits: bool = False) -> Steps:
    """The DAG run is cleared after success: each of its tasks buys one new prediction."""
    if waits:
        yield from it.paid(1)
        it.pin(it.creates()[0])
    yield from it.ends("success")
    yield from it.until("the run has ended, or was cleared", it.run_is_over)
    it.clear_whole_run()
    if waits:
        yield from it.paid(2)
        it.pin(it.creates()[1])
    yield from it.ends("success")
    ids = it.creates()
    it.claim("creates", 2, len(ids))
    it.claim_handed_over(ids, reason="clear", earlier=ids[:1])


def untouched(it: Story, state: str = "success", creates: int = 1, pinned: str = "") -> Steps:
    """Another map index of the task is cleared: nothing happens to this one."""
    if pinned:
        yield from it.paid(1)
        yield from it.until("the others are done", lambda: all(story.seconds is not None for story in it.siblings()))
        it.pin(it.creates()[0], pinned)
    yield from it.ends(state)
    yield from it.until("the others are done", lambda: all(story.seconds is not None for story in it.siblings()))
    it.claim("the others were cleared", True, all(story.clears for story in it.siblings()))
    it.claim("state", state, it.state)
    it.claim("creates", creates, len(it.creates()))
    it.claim("max_tries, which a clear raises", RETRIES, it.instance["max_tries"])
    if state == "success":
        it.claim_handed_over(it.creates())
