"""Which input of a batch is which, and when the rest is not sent any more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.submissions.batch import STOP_AFTER_LOST, Batch, RecordedCreate
from airflow_provider_comet.submissions.record import BatchRecord

MODEL = "black-forest-labs/flux-schnell"


def placed(*inputs: Any, model: str = MODEL, known: Mapping[str, Sequence[RecordedCreate]] | None = None) -> Batch:
    made = Batch.of(model, inputs)
    made.assign_records(known or {})
    return made


def batch(count: int) -> Batch:
    return placed(*({"prompt": str(number)} for number in range(count)))


def keys(*inputs: Any, model: str = MODEL) -> list[str]:
    return [item.key for item in placed(*inputs, model=model).items]


def test_an_input_is_known_by_what_it_is() -> None:
    """Its key is the same whatever its position and the order of its parameters."""
    first, second = {"prompt": "a", "seed": 1}, {"prompt": "b"}
    assert keys(second, first) == keys(first, second)[::-1]
    assert keys({"seed": 1, "prompt": "a"}) == keys(first)
    assert keys({"prompt": "new"}, first, second)[1:] == keys(first, second)


def test_equal_inputs_are_counted() -> None:
    """Two equal inputs are two predictions; a third one does not change the first two."""
    same = {"prompt": "a"}
    first, second = keys(same, same)
    assert first != second
    assert keys(same, {"prompt": "b"}, same, same)[::2][:2] == [first, second]
    assert len({*keys(*[same] * 50)}) == 50


def test_another_model_is_another_prediction() -> None:
    """A list must not be half from one model and half from another."""
    assert keys({"prompt": "a"}) != keys({"prompt": "a"}, model="black-forest-labs/flux-dev")


@pytest.mark.parametrize("input", [None, "text", 3, {1: "key"}, {"a": object()}, {"a": float("nan")}])
def test_anything_has_a_key(input: Any) -> None:
    """What can't be sent is refused elsewhere, with better words."""
    (key,) = keys(input)
    assert key.endswith("-1")


def test_an_input_that_holds_itself_has_a_key() -> None:
    """It is refused elsewhere, too."""
    endless: dict[str, Any] = {}
    endless["self"] = endless
    assert len(keys(endless)) == 1


@pytest.mark.parametrize(
    ("error", "stops"),
    [
        (e.BadRequestError("no"), False),
        (e.InvalidInputError("no"), False),
        (e.AuthenticationError("no"), True),
        (e.BalanceExhaustedError("no"), True),
        (e.ModelNotFoundError("no"), True),
        (e.WrongURLError("no"), True),
        (e.ConfigurationError("no"), True),
        (e.RateLimitedError("no"), True),
        (e.TransportError("no"), True),
        (e.SubmissionRecordError("no"), True),
        (e.UnrecordedPredictionError("no"), True),
    ],
)
def test_what_concerns_all_stops_the_rest(error: e.CometError, stops: bool) -> None:
    """An error about one input does not stop the others; any other error would meet each of them."""
    made = batch(3)
    made.failed(made.items[0], error)
    assert made.stop.stopped is stops
    assert [item.index for item in made.missing] == [1, 2]


def test_lost_answers_in_a_row_stop_the_rest() -> None:
    """One lost answer is an accident; more in a row are a wrong URL or a failing gateway, and each may be billed."""
    made = batch(10)
    for number in range(0, 8, 2):
        made.failed(made.items[number], e.AmbiguousSubmissionError("lost"))
        made.accepted()
    assert not made.stop.stopped
    for number in (8, 9)[:STOP_AFTER_LOST]:
        made.failed(made.items[number], e.AmbiguousSubmissionError("lost"))
    assert made.stop.stopped


def test_ids_keep_order_and_length() -> None:
    """Null stands for what was not accepted, and what is said of it is in ``rejected``."""
    made = batch(3)
    made.items[2].id = "third"
    made.failed(made.items[0], e.BadRequestError("this prompt is refused", status=400))
    assert made.ids == [None, None, "third"]
    (rejected,) = made.rejected()
    assert (rejected["index"], rejected["type"]) == (0, "BadRequestError")
    assert "this prompt is refused" in rejected["error"]


def test_the_error_lists_inputs_and_reasons() -> None:
    """By place and first words; first those that may be paid for, with the place of their record."""
    made = placed({"image": "data:image/png;base64,AAAA"}, {"prompt": "a lighthouse " * 20}, {}, {})
    made.failed(made.items[0], e.BadRequestError("too small"))
    made.failed(made.items[1], e.AmbiguousSubmissionError("no answer"))
    text = str(made.error())
    assert text.startswith("Some inputs have no prediction: 2 of 4; 2 more were not sent.")
    assert f"(record comet_submission.{made.items[1].key}): The create has no clear answer" in text
    assert 'inputs[1] {"prompt": "a lighthouse a lighthouse' in text
    assert "AAAA" not in text
    assert len(text.splitlines()[1]) < 400


def test_the_longest_pause_counts_for_all() -> None:
    """What a retry policy reads of a list is what its most patient error says."""
    made = batch(2)
    made.failed(made.items[0], e.RateLimitedError("slow", retry_after=3))
    made.failed(made.items[1], e.RateLimitedError("slower", retry_after=30))
    assert made.error().retry_after == 30


def test_a_clear_answer_ends_a_row() -> None:
    """Lost, refused, lost is no row: the API answers."""
    made = batch(3)
    made.failed(made.items[0], e.AmbiguousSubmissionError("lost"))
    made.failed(made.items[1], e.BadRequestError("no"))
    made.failed(made.items[2], e.AmbiguousSubmissionError("lost"))
    assert not made.stop.stopped


def test_of_equal_inputs_the_paid_ones_are_used() -> None:
    """A list that has grown shorter uses what is paid for, then what must not be sent; a new number is not used yet."""
    lost = e.AmbiguousSubmissionError("lost")
    (digest,) = {item.digest for item in Batch.of(MODEL, [{}]).items}
    known = {
        digest: [
            RecordedCreate(f"{digest}-1", error=lost),
            RecordedCreate(f"{digest}-2"),
            RecordedCreate(f"{digest}-4", id="paid"),
        ]
    }
    assert placed({}, known=known).ids == ["paid"]
    two = placed({}, {}, known=known)
    assert [(item.id, item.error) for item in two.items] == [("paid", None), (None, lost)]
    four = placed(*[{}] * 4, known=known)
    assert [item.key[-2:] for item in four.items] == ["-4", "-1", "-2", "-3"]
    assert [item.index for item in four.missing] == [2, 3]


def test_what_was_handed_over_is_known_by_its_id() -> None:
    """Not by the attempt in which that was: its number can come again."""
    marked = BatchRecord({"a-1": None}, max_tries=2).with_delivered({"a-1": "first"})
    assert marked.has_delivered("a-1", "first")
    assert not marked.has_delivered("a-1", "second")
    assert not marked.has_delivered("a-1", None)
    assert not marked.has_delivered("b-1", "first")
    assert BatchRecord.from_json(marked.to_json()) == marked
    assert "first" not in str(marked.to_json())


@pytest.mark.parametrize(
    "value",
    ["text", {}, {"version": 2, "items": {}}, {"version": 1, "items": ["a-1"]}, {"version": 1, "items": {"a": None}}],
)
def test_an_unreadable_mark_is_no_empty_one(value: Any) -> None:
    """Else everything would be bought again."""
    with pytest.raises(e.SubmissionRecordError, match="comet_batch"):
        BatchRecord.from_json(value)
