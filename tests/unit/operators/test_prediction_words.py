"""Whatever words a server answers with, what tasks log and raise of them is printable, on one line, and short."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from airflow_provider_comet.emulator import Emulator
from tests.support.characters import acting
from tests.support.task_runner import Clock, TaskRunner
from tests.unit.sensors.helpers import sensor
from tests.unit.submissions.creates import waiting

MAX_CHARACTERS = 1_800
"""An error of 300 characters, an id, a code, a request id, and what to do about it."""
WORDS = st.one_of(
    st.text(max_size=60),
    st.text("\x1b[31m\n\r\x00\x7f\x85\x9b\u2028\u202e\u2066\u200b\ufeff\ud83d x=", max_size=30),
    st.sampled_from(["\ncomet.created id=forged model=a/b", "\u202e" * 5_000, "x" * 100_000, "\x1b]0;title\x07"]),
)
DETAILS = WORDS | st.lists(WORDS, max_size=2) | st.dictionaries(WORDS, WORDS, max_size=2)
IN_HEADERS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\r\n\0"), max_size=30)
PREDICTIONS = st.fixed_dictionaries(
    {"id": WORDS | st.just("abc"), "status": WORDS | st.sampled_from(["starting", "succeeded", "failed", "canceled"])},
    optional=dict.fromkeys(["model", "version", "logs", "created_at", "completed_at", "error", "output"], DETAILS),
)
BODIES = st.one_of(
    PREDICTIONS,
    st.fixed_dictionaries({"code": st.just("success"), "data": PREDICTIONS | DETAILS}),
    st.fixed_dictionaries({"code": st.just("success"), "data": st.fixed_dictionaries({
        "task_id": WORDS, "status": WORDS | st.just("FAILURE"), "fail_reason": DETAILS, "data": PREDICTIONS,
    })}),
    st.fixed_dictionaries({"error": st.fixed_dictionaries({"message": DETAILS, "code": DETAILS}) | DETAILS}),
    st.fixed_dictionaries({"code": WORDS, "message": DETAILS, "request_id": WORDS}),
    st.fixed_dictionaries({"detail": DETAILS}) | st.fixed_dictionaries({"title": DETAILS}),
    WORDS.map(lambda words: f"<html><title>{words}</title>"),
    WORDS,
)  # fmt: skip
ANSWERS = st.fixed_dictionaries({
    "status": st.sampled_from([200, 201, 302, 400, 401, 403, 404, 408, 429, 500, 503, 504, 524]),
    "body": BODIES,
    "headers": st.fixed_dictionaries({}, optional={
        "x-cometapi-request-id": IN_HEADERS, "content-type": IN_HEADERS, "retry-after": IN_HEADERS,
    }),
})  # fmt: skip
FORGED: dict[str, Any] = {"id": "x\ncomet.created id=y", "status": "\x1b[31m\nred", "model": "m\ncomet.finished id=z"}


def test_words_of_a_server(comet: Emulator, runner: TaskRunner, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """In every place of an answer, to a create and to a poll, for a create that waits and for a sensor."""
    waiting()  # the first import of an operator sets up Airflow's logging

    # Not shrunk: each example is a dozen requests.
    @settings(max_examples=12, suppress_health_check=[*HealthCheck], phases=[Phase.explicit, Phase.generate])
    @example({"status": 201, "body": FORGED, "headers": {}}, {"status": 200, "body": FORGED, "headers": {}})
    @example(
        {"status": 201, "body": {**FORGED, "id": "abc"}, "headers": {}},
        {"status": 200, "body": {**FORGED, "status": "failed", "error": "\x1b\ncomet.created id=x"}, "headers": {}},
    )
    @given(ANSWERS, ANSWERS)
    def check(to_create: dict[str, Any], to_poll: dict[str, Any]) -> None:
        comet.reset()
        caplog.clear()
        runner.store.clear()
        comet.fault(method="POST", accept=to_create["status"] < 300, **as_sent(to_create))
        comet.fault(method="GET", count=None, **as_sent(to_poll))
        waits: dict[str, Any] = {"deferrable": False, "poke_interval": 10, "timeout": 15}
        with capture_logs() as entries:
            outcomes = [runner.run(waiting(**waits)), runner.run(sensor("abc", **waits))]
            outcomes.append(runner.run(sensor(["abc", "def"], on_item_error="keep", **waits)))
        assert comet.ledger()["accepted"] <= 1
        for outcome in outcomes:
            if outcome.error is not None:
                is_list = "predictions have no result" in outcome.message.lower()
                assert acting(outcome.message, "\n" if is_list else "") == []
                assert len(outcome.message) <= MAX_CHARACTERS * (3 if is_list else 1)
                assert type(outcome.error).__module__.startswith("airflow"), outcome.error
        lines = ours(caplog, entries)
        assert [line for line in lines if "\n" not in line and (acting(line) or len(line) > MAX_CHARACTERS)] == []
        assert [line for line in lines if "\n" in line and not line.startswith("Some predictions have no")] == []
        assert not [line for line in lines if line.startswith(("comet.created id=forged", "comet.finished id=forged"))]

    with caplog.at_level(logging.INFO):
        check()


def ours(caplog: pytest.LogCaptureFixture, entries: Sequence[Any]) -> list[str]:
    """What the package has logged: its modules through Python's logging, its hooks and operators through structlog."""
    by_structlog = [str(entry["event"]) for entry in entries]
    return by_structlog + [
        record.getMessage()
        for record in caplog.records
        if "airflow_provider_comet" in record.name and "emulator" not in record.name
    ]


def as_sent(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer as the emulator sends it: UTF-8, with what JSON escapes."""
    body = answer["body"]
    return {**answer, "body": body.encode("utf-8", "replace").decode() if isinstance(body, str) else body}


def test_a_status_of_five_megabytes_is_no_line_of_five_megabytes(
    comet: Emulator, runner: TaskRunner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """At most 80 characters of a word that nobody knows are shown, in each line that names it."""
    caplog.set_level(logging.INFO)
    comet.fault(method="GET", count=None, status=200, body={"id": "abc", "status": "y" * 5_000_000})
    waits: dict[str, Any] = {"deferrable": False, "poke_interval": 200, "timeout": 1_000}
    with capture_logs() as entries:
        outcomes = [runner.run(sensor(ids, **waits)) for ids in ("abc", ["abc", "def"])]
    assert not [outcome for outcome in outcomes if "y" * 301 in outcome.message]
    lines = ours(caplog, entries)
    named = [line for line in lines if "yyy" in line]
    assert len(named) >= 3
    assert not [line for line in named if "y" * 81 in line]
    assert json.dumps(lines).count("is unknown here") >= 2
