"""``submissions/record.py``: what an attempt may do by what is on record. One table."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.validation import is_prediction_id
from airflow_provider_comet.submissions.record import (
    PUT_ON_RECORD,
    STATES,
    BatchRecord,
    MalformedRecordError,
    Record,
    decide,
    stored_id,
)
from tests.support.characters import acting

AMBIGUOUS = e.AmbiguousSubmissionError
REFUSED = e.PredictionRefusedError
EXPIRED = e.PredictionExpiredError
EMPTY = e.EmptyOutputError

# state, the error that an attempt has reported -> after a retry (policy fail, retry), after a clear
# A word: a new create, for this reason. None: continue with the recorded id. An error: neither.
TABLE: list[tuple[str | None, str | None, Any, Any, Any]] = [
    (None, None, "first", "first", "first"),
    ("rejected", None, "retry_failed", "retry_failed", "retry_failed"),  # what the rejected create was for
    ("sending", None, AMBIGUOUS, "retry_ambiguous", "clear"),
    ("accepted", None, None, None, None),
    ("accepted", "PredictionFailedError", "retry_failed", "retry_failed", "clear"),
    ("accepted", "PredictionCanceledError", "retry_failed", "retry_failed", "clear"),
    ("accepted", "PredictionAbortedError", "retry_failed", "retry_failed", "clear"),
    ("accepted", "PredictionRefusedError", REFUSED, REFUSED, "clear"),
    ("accepted", "PredictionExpiredError", EXPIRED, EXPIRED, "clear"),
    ("accepted", "EmptyOutputError", EMPTY, EMPTY, "clear"),
    ("accepted", "AnErrorOfALaterRelease", e.CometError, e.CometError, "clear"),
    ("delivered", None, None, None, "clear"),
]
CASES = [
    (state, reported_error, cleared, policy, expected)
    for state, reported_error, fail, retry, clear in TABLE
    for cleared, policy, expected in (
        (False, "fail", fail),
        (False, "retry", retry),
        (True, "fail", clear),
        (True, "retry", clear),
    )
]


def record(state: str | None, reported_error: str | None = None) -> Record | None:
    if state is None:
        return None
    fields = {"id": "abc"} if state in ("accepted", "delivered") else {"reason": "retry_failed"}
    return Record(
        state, model="a/b", at="2026-11-23T06:00:00.000Z", max_tries=2, reported_error=reported_error, **fields
    )


@pytest.mark.parametrize(("state", "reported_error", "cleared", "policy", "expected"), CASES, ids=str)
def test_what_an_attempt_does(
    state: str | None, reported_error: str | None, cleared: bool, policy: str, expected: Any
) -> None:
    """Nothing paid and not handed over is bought again; what was handed over only after a clear."""
    arguments: dict[str, Any] = {"cleared": cleared, "on_ambiguous_submit": policy}
    if expected is None or isinstance(expected, str):
        assert decide(record(state, reported_error), **arguments) == expected
    else:
        with pytest.raises(e.CometError) as caught:
            decide(record(state, reported_error), **arguments)
        assert type(caught.value) is expected
        assert caught.value.prediction_id == ("abc" if reported_error else None)


def test_the_table_is_complete() -> None:
    """Every state a record can have, and none, stands in the table."""
    assert {row[0] for row in TABLE} == {None, *STATES}


def test_an_unknown_fate_names_what_helps_to_find_out() -> None:
    """Time, model, request id, the answer if there was one, and both ways on."""
    found = Record("sending", model="a/b", at="2026-11-23T06:00:00.000Z", answer="HTTP 504", request_id="2026X")
    with pytest.raises(AMBIGUOUS) as caught:
        decide(found, cleared=False, on_ambiguous_submit="fail")
    text = str(caught.value)
    for words in ("2026-11-23T06:00:00.000Z", "a/b", "request id 2026X", "got HTTP 504", "usage page"):
        assert words in text


def test_users_are_told_a_value_that_is_a_record() -> None:
    """The value that the messages name can be read."""
    value = PUT_ON_RECORD.partition(" to ")[2].partition(" and ")[0]
    assert Record.from_json(json.loads(value.replace("<the id>", "abc"))) == Record("accepted", id="abc")


def test_a_record_survives_the_store() -> None:
    """What is written is read again, through JSON."""
    whole = Record(
        "accepted",
        id="abc",
        reason="clear",
        model="a/b",
        input={"prompt": "0123"},
        max_tries=4,
        at="2026-11-23T06:00:00.000Z",
        request_id="r",
        reported_error="EmptyOutputError",
        earlier=("x", "y"),
    )
    for record in (whole, Record("sending")):
        assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_user_can_put_an_id_on_record() -> None:
    """The three fields that the error messages name are a record."""
    assert Record.from_json({"version": 1, "state": "accepted", "id": "abc"}) == Record("accepted", id="abc")


@pytest.mark.parametrize(
    "value",
    [
        "abc",
        7,
        [],
        {},
        {"version": 2, "state": "accepted", "id": "abc"},
        {"state": "accepted", "id": "abc"},
        {"version": 1, "state": "paid", "id": "abc"},
        {"version": 1, "state": "accepted"},
        {"version": 1, "state": "delivered", "id": ""},
        {"version": 1, "state": "accepted", "id": "<the id>"},
        {"version": 1, "state": "accepted", "id": "../models"},
        {"version": 1, "state": "accepted", "id": 7},
        {"version": 1, "state": "accepted", "id": "abc", "earlier": "abc"},
        {"version": 1, "state": "accepted", "id": "abc", "input": "abc"},
        {"version": 1, "state": "sending", "max_tries": "2"},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_an_error(value: Any) -> None:
    """Garbage, and a newer release's record, are never taken for "nothing was paid"."""
    with pytest.raises(MalformedRecordError, match="Correct it in the task's state store"):
        Record.from_json(value)


def test_an_id_that_the_api_gave_is_an_id() -> None:
    """Only what a person wrote is checked: a record with a model was written by an attempt."""
    value = {"version": 1, "state": "accepted", "id": "an id/of a new form", "model": "a/b"}
    assert Record.from_json(value).id == "an id/of a new form"


def test_a_newer_field_is_ignored() -> None:
    """Another release of the same version may say more."""
    assert Record.from_json({"version": 1, "state": "rejected", "mood": "good"}) == Record("rejected")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
)


@given(st.dictionaries(st.text(max_size=5), JSON, max_size=5), st.dictionaries(st.text(max_size=5), JSON, max_size=5))
def test_changes_name_exactly_the_keys_that_differ(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A change of the input is named by its keys, whatever the values."""
    from airflow_provider_comet.submissions.digests import digest_of_input as digest

    missing = object()
    expected = {
        f"input.{key}"
        for key in before.keys() | after.keys()
        if json.dumps(before.get(key, repr(missing))) != json.dumps(after.get(key, repr(missing)))
    }
    changes = Record("accepted", id="abc", model="a/b", input=digest(before)).changes("a/b", digest(after))
    assert set(changes) == (expected if before else set())


def test_changes_name_the_model_and_no_value() -> None:
    """The model is named as such; neither record nor changes hold a prompt."""
    from airflow_provider_comet.submissions.digests import digest_of_input as digest

    before = Record("accepted", id="abc", model="a/b", input=digest({"prompt": "a secret garden", "seed": 1}))
    assert before.changes("a/c", digest({"prompt": "a public garden", "size": 2})) == [
        "model",
        "input.prompt",
        "input.seed",
        "input.size",
    ]
    assert "garden" not in json.dumps(before.to_json())
    assert Record("accepted", id="abc").changes("a/c", digest({"prompt": "x"})) == []


LOOP: dict[str, Any] = {}
LOOP["prompt"] = LOOP


def test_an_input_that_is_no_object_can_be_compared() -> None:
    """A retry whose template went wrong still continues with what was paid."""
    from airflow_provider_comet.submissions.digests import digest_of_input as digest

    before = Record("accepted", id="abc", model="a/b", input=digest({"prompt": "x"}))
    for now in (
        "{{ broken }}",
        [1],
        {"prompt": {1, 2}},
        {"prompt": {1: "x", "b": "y"}},
        {"prompt": {(1, 2): 3}},
        LOOP,
    ):
        assert before.changes("a/b", digest(now))
    assert before.changes("a/b", None) == []  # not known: a function that makes it is not called again


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["accepted", "a-1"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.just("a-1"), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELDS = [*Record("sending").to_json(), "items"]


@given(VALUES | st.fixed_dictionaries({"version": st.just(1) | VALUES}, optional=dict.fromkeys(FIELDS[1:], VALUES)))
def test_a_stored_value_of_any_json_is_a_record_or_an_error(value: Any) -> None:
    """Whatever a user, or another release, wrote: never an exception that looks like "nothing was paid"."""
    shown: list[str] = []
    for read in (Record.from_json, BatchRecord.from_json):
        try:
            record: Any = read(value)
        except MalformedRecordError as error:
            shown.append(str(error))
            continue
        assert read(json.loads(json.dumps(record.to_json()))) == record
        if isinstance(record, Record):
            for policy in ("fail", "retry"):
                with contextlib.suppress(e.CometError):
                    decide(record, cleared=False, on_ambiguous_submit=policy)
            record.changes("a/b", {"prompt": "0123456789abcdef"})
    assert acting("".join(shown)) == []


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("levels", [400, 100_000])
def test_a_deep_stored_value_is_an_error(field: str, levels: int) -> None:
    """Nesting that Python can't walk is a malformed record, too."""
    value: Any = "x"
    for _ in range(levels):
        value = [value]
    stored = {**Record("accepted", "abc", model="a/b").to_json(), field: value}
    for read in (Record.from_json, BatchRecord.from_json):
        with contextlib.suppress(MalformedRecordError):
            read(stored)


@pytest.mark.parametrize("key", ["a-" + "1" * 5_000, "a" * 5_000 + "-1", "a-1\n", "-1", "a-", "1", "a-x"], ids=len)
def test_a_key_of_a_batch_is_short(key: str) -> None:
    """A number of five thousand digits is none that Python reads."""
    with pytest.raises(MalformedRecordError):
        BatchRecord.from_json({"version": 1, "items": {key: None}})


@given(st.text())
def test_an_id_is_stored_as_it_is_if_it_can_be_used(text: str) -> None:
    """Only a usable id is polled: what a database can't hold does not become another prediction's id."""
    stored = stored_id(text)
    assert is_prediction_id(stored) == is_prediction_id(text)
    assert stored == text or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text)
    assert "\0" not in json.loads(json.dumps(stored).encode())


def test_a_long_id_is_stored_in_part() -> None:
    """Five million characters are no row of a database, and their start is no usable id."""
    stored = stored_id("a" * 5_000_000)
    assert len(stored) < 1_100
    assert stored.endswith("(5000000 characters)")
    assert not is_prediction_id(stored)
