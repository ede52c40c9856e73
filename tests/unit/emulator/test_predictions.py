from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_comet.emulator.catalog import CATALOG
from airflow_provider_comet.emulator.predictions import NSFW, Prediction, create_answer, iso, query_answer, wrap
from airflow_provider_comet.emulator.store import Store

T0 = 1_773_314_838.258  # 2026-03-12T11:27:18.258Z, as in the documented sample
ORIGIN = "http://files.test"


def prediction(model: str = "black-forest-labs/flux-schnell", **input: Any) -> Prediction:
    """Created at T0, started two seconds later, done after ten."""
    return Prediction(CATALOG[model], {"prompt": "a b c d", **input}, T0, T0 + 2, T0 + 10)


def seen(item: Prediction, after: float) -> dict[str, Any]:
    return query_answer(item, T0 + after, 3600, ORIGIN)


def test_create_answer_has_the_documented_fields() -> None:
    """The answer to a create consists of exactly the documented fields, nothing of the result among them."""
    item = prediction()
    answer = create_answer(item)
    urls = answer.pop("urls")
    assert answer == {
        "id": item.id,
        "model": "black-forest-labs/flux-schnell",
        "version": "hidden",
        "input": {"prompt": "a b c d"},
        "logs": "",
        "output": None,
        "data_removed": False,
        "error": None,
        "source": "api",
        "status": "starting",
        "created_at": "2026-03-12T11:27:18.258Z",
    }
    assert set(urls) == {"cancel", "get", "stream", "web"}
    assert all(re.match(r"https://(\w+\.)?replicate\.com/", url) for url in urls.values())


def test_ids_look_like_the_real_ones() -> None:
    """Ids are 26 lower-case letters and digits, and no two are equal."""
    ids = {prediction().id for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch(r"[a-z0-9]{26}", id) for id in ids)


@pytest.mark.parametrize(
    ("after", "status", "fields"),
    [
        (0.0, "starting", set()),
        (1.9, "starting", set()),
        (2.0, "processing", {"started_at"}),
        (9.9, "processing", {"started_at"}),
        (10.0, "succeeded", {"started_at", "completed_at", "metrics"}),
    ],
)
def test_status_follows_the_time(after: float, status: str, fields: set[str]) -> None:
    """A prediction starts, processes and succeeds by itself; times and metrics appear when they are known."""
    answer = seen(prediction(), after)
    assert answer["status"] == status
    assert set(answer) - set(create_answer(prediction())) == fields
    assert (answer["output"] is not None) == (status == "succeeded")


def test_finished_prediction_tells_times_and_metrics() -> None:
    """A finished prediction says when it ran, how long that took and how many images came of it."""
    answer = seen(prediction(num_outputs=3), 11)
    assert answer["started_at"] == "2026-03-12T11:27:20.258Z"
    assert answer["completed_at"] == "2026-03-12T11:27:28.258Z"
    assert answer["metrics"] == {"predict_time": 8.0, "image_count": 3}


@pytest.mark.parametrize("model", [name for name, model in CATALOG.items() if model.output == "urls"])
def test_list_models_give_a_list_of_urls(model: str) -> None:
    """Models that can make several pictures answer with a list, also for one."""
    item = prediction(model)
    assert seen(item, 10)["output"] == [f"{ORIGIN}/delivery/{item.id}/0.webp"]


@pytest.mark.parametrize("model", [name for name, model in CATALOG.items() if model.output == "url"])
def test_single_models_give_one_bare_url(model: str) -> None:
    """Models that make one picture answer with a string, whatever num_outputs asks."""
    item = prediction(model, num_outputs=3, output_format="png")
    assert seen(item, 10)["output"] == f"{ORIGIN}/delivery/{item.id}/0.png"


@pytest.mark.parametrize(("asked", "made"), [(1, 1), (4, 4), (9, 4), (0, 1), ("2", 1), (None, 1)])
def test_number_of_outputs(asked: object, made: int) -> None:
    """num_outputs is honoured from one to four."""
    assert len(seen(prediction(num_outputs=asked), 10)["output"]) == made


def test_unknown_output_format_gives_webp() -> None:
    """An output_format that no model knows falls back to webp."""
    assert seen(prediction(output_format="bmp"), 10)["output"][0].endswith("/0.webp")


def test_text_output_grows_while_processing() -> None:
    """A language model shows part of its tokens while still processing, as the real ones do."""
    item = prediction("meta/meta-llama-3-8b-instruct")
    assert seen(item, 1)["output"] is None
    partial = seen(item, 6)
    assert partial["status"] == "processing"
    assert partial["output"] == ["\n\n", "You said:", " a"]
    assert "".join(seen(item, 10)["output"]) == "\n\nYou said: a b c d"


@pytest.mark.parametrize("prompt", ["something nsfw", "Something NSFW!"])
def test_nsfw_prompt_fails(prompt: str) -> None:
    """The one magic word makes a prediction run and then fail as a content filter does."""
    item = prediction(prompt=prompt)
    assert seen(item, 5)["status"] == "processing"
    answer = seen(item, 10)
    assert (answer["status"], answer["error"], answer["output"]) == ("failed", NSFW, None)


def test_output_disappears_after_retention() -> None:
    """An hour after completion the prediction still says succeeded, but its output is gone."""
    item = prediction()
    assert seen(item, 3609.9)["output"]
    assert item.delivers(T0 + 3609.9, 3600)
    answer = seen(item, 3610)
    assert (answer["status"], answer["output"], answer["data_removed"]) == ("succeeded", None, True)
    assert not item.delivers(T0 + 3610, 3600)


def test_nothing_is_delivered_before_completion() -> None:
    """Files exist once the prediction has succeeded, and not before."""
    item = prediction()
    assert not item.delivers(T0 + 9.9, 3600)
    assert item.delivers(T0 + 10, 3600)
    assert not prediction(prompt="nsfw").delivers(T0 + 10, 3600)


@pytest.mark.parametrize("status", ["canceled", "aborted", "failed"])
def test_pinned_end_counts_from_the_pin(status: str) -> None:
    """A prediction that a test ends is over at that moment, whatever its duration."""
    item = prediction()
    item.pin({"status": status, "error": "because"}, T0 + 1)
    answer = seen(item, 1)
    assert (answer["status"], answer["error"], answer["output"]) == (status, "because", None)
    assert answer["completed_at"] == "2026-03-12T11:27:19.258Z"


def test_a_held_prediction_ends_when_it_is_let_go() -> None:
    """One that was pinned as running past its natural end has finished when it is pinned as finished, and keeps its
    files from then on."""
    item = prediction()
    item.pin({"status": "processing"}, T0)
    assert wrap(item, seen(item, 5000), T0 + 5000)["data"]["finish_time"] == 0
    item.pin({"status": "succeeded"}, T0 + 5000)
    answer = seen(item, 5001)
    assert (answer["completed_at"], answer["data_removed"]) == (iso(T0 + 5000), False)
    assert answer["output"]


def test_pinned_running_status_lasts() -> None:
    """A pinned running status never ends by itself, even one nobody has heard of."""
    item = prediction()
    item.pin({"status": "rebooting"}, T0)
    answer = seen(item, 100)
    assert (answer["status"], answer["output"]) == ("rebooting", None)


def test_pinned_output_is_shown_as_it_is() -> None:
    """Any output can be pinned, an empty one too."""
    item = prediction()
    for output in ([], None, {"odd": 1}, "text"):
        item.pin({"output": output}, T0)
        assert seen(item, 10)["output"] == output


def test_pinned_removal_empties_the_output() -> None:
    """data_removed alone takes output and files away."""
    item = prediction()
    item.pin({"data_removed": True}, T0)
    assert seen(item, 10)["output"] is None
    assert not item.delivers(T0 + 10, 3600)


@pytest.mark.parametrize("fields", [{}, {"id": "x"}, {"status": "failed", "model": "x"}, {"status": 5}])
def test_other_pins_are_refused(fields: dict[str, Any]) -> None:
    """Only the fields of a result can be pinned, and a status is a string."""
    item = prediction()
    with pytest.raises(ValueError, match="status"):
        item.pin(fields, T0)
    assert item.pinned == {}


@pytest.mark.parametrize(
    ("after", "status", "progress", "start", "finish"),
    [
        (0, "QUEUED", "0%", 0, 0),
        (5, "IN_PROGRESS", "50%", int(T0 + 2), 0),
        (10, "SUCCESS", "100%", int(T0 + 2), int(T0 + 10)),
    ],
)
def test_wrapped_answer(after: float, status: str, progress: str, start: int, finish: int) -> None:
    """The task envelope has upper-case states and epoch seconds of its own, around the same prediction."""
    item = prediction()
    answer = seen(item, after)
    assert wrap(item, answer, T0 + after) == {
        "code": "success",
        "message": "",
        "data": {
            "task_id": item.id,
            "action": "generate",
            "status": status,
            "fail_reason": "",
            "submit_time": int(T0),
            "start_time": start,
            "finish_time": finish,
            "progress": progress,
            "data": answer,
        },
    }


@pytest.mark.parametrize(
    ("pins", "status", "reason"),
    [
        ({"status": "failed", "error": "E1000"}, "FAILURE", "E1000"),
        ({"status": "canceled"}, "FAILURE", ""),
        ({"status": "rebooting", "error": "?"}, "UNKNOWN", ""),
    ],
)
def test_wrapped_ends(pins: dict[str, Any], status: str, reason: str) -> None:
    """In the envelope every bad end is FAILURE, and a state it does not know is UNKNOWN."""
    item = prediction()
    item.pin(pins, T0)
    data = wrap(item, seen(item, 0), T0)["data"]
    assert (data["status"], data["fail_reason"]) == (status, reason)


def test_every_duration_is_short_but_not_nothing() -> None:
    """Each model takes long enough to be seen running, and never tries one's patience."""
    assert all(1.5 <= model.seconds <= 8 for model in CATALOG.values())


@pytest.mark.parametrize(("duration", "expected"), [(None, 1.5), (0.2, 0.2), (30, 30)])
def test_duration_overrides_the_models_own(duration: float | None, expected: float) -> None:
    """Without a duration each model takes its own time; with one they all take that."""
    item = Store(duration=duration, clock=lambda: T0).create(CATALOG["black-forest-labs/flux-schnell"], {"prompt": "x"})
    assert item.completed - T0 == pytest.approx(expected, abs=1e-3)
    assert T0 < item.started < item.completed


def test_outcomes_apply_in_order_to_new_predictions() -> None:
    """Preset outcomes are used up one per prediction; later ones are normal again."""
    store = Store(duration=0, clock=lambda: T0)
    store.expect({"status": "failed"}, 2)
    store.expect({"status": "aborted"})
    model = CATALOG["black-forest-labs/flux-schnell"]
    assert [store.create(model, {"prompt": "x"}).status(T0) for _ in range(4)] == [
        "failed",
        "failed",
        "aborted",
        "succeeded",
    ]


@pytest.mark.parametrize("count", [0, -1])
def test_outcome_count_must_be_positive(count: int) -> None:
    """A preset for no prediction at all is a mistake."""
    with pytest.raises(ValueError, match="count"):
        Store().expect({"status": "failed"}, count)


def test_ledger_of_requests_is_bounded() -> None:
    """An emulator that is polled for days does not fill the memory."""
    assert Store().requests.maxlen == 100_000
