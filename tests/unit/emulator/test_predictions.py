from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_comet.emulator.catalog import CATALOG
from airflow_provider_comet.emulator.predictions import NSFW, Prediction, create_answer, iso, query_answer, wrap

T0 = 1_773_314_838.258  # 2026-03-12T11:27:18.258Z, as in the documented sample
ORIGIN = "http://files.test"


def create(model: str = "black-forest-labs/flux-schnell", **input: Any) -> Prediction:
    """Return a prediction that is created at T0, starts two seconds later and ends after ten."""
    return Prediction(CATALOG[model], {"prompt": "a b c d", **input}, T0, T0 + 2, T0 + 10)


def query(prediction: Prediction, after: float) -> dict[str, Any]:
    """Return the answer to a query `after` seconds after the create."""
    return query_answer(prediction, T0 + after, 3600, ORIGIN)


def test_create_answer_has_the_documented_fields() -> None:
    """The answer to a create has exactly the documented fields, and no result."""
    prediction = create()
    answer = create_answer(prediction)
    urls = answer.pop("urls")
    assert answer == {
        "id": prediction.id,
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


def test_format_of_ids() -> None:
    """Ids are 26 lower-case letters and digits, and all are different."""
    ids = {create().id for _ in range(100)}
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
    """The status follows the time: starting, processing, succeeded; times and metrics appear when they are known."""
    answer = query(create(), after)
    assert answer["status"] == status
    assert set(answer) - set(create_answer(create())) == fields
    assert (answer["output"] is not None) == (status == "succeeded")


def test_finished_prediction_has_times_and_metrics() -> None:
    """A finished prediction has start and end times, the duration and the number of images."""
    answer = query(create(num_outputs=3), 11)
    assert answer["started_at"] == "2026-03-12T11:27:20.258Z"
    assert answer["completed_at"] == "2026-03-12T11:27:28.258Z"
    assert answer["metrics"] == {"predict_time": 8.0, "image_count": 3}


@pytest.mark.parametrize("model", [name for name, model in CATALOG.items() if model.output == "urls"])
def test_list_models_give_a_list_of_urls(model: str) -> None:
    """Models that can make several pictures answer with a list, even for a single picture."""
    prediction = create(model)
    assert query(prediction, 10)["output"] == [f"{ORIGIN}/delivery/{prediction.id}/0.webp"]


@pytest.mark.parametrize("model", [name for name, model in CATALOG.items() if model.output == "url"])
def test_single_models_give_one_bare_url(model: str) -> None:
    """Models that make a single picture answer with a string, whatever num_outputs says."""
    prediction = create(model, num_outputs=3, output_format="png")
    assert query(prediction, 10)["output"] == f"{ORIGIN}/delivery/{prediction.id}/0.png"


@pytest.mark.parametrize(("num_outputs", "files"), [(1, 1), (4, 4), (9, 4), (0, 1), ("2", 1), (None, 1)])
def test_number_of_outputs(num_outputs: object, files: int) -> None:
    """num_outputs is used from one to four."""
    assert len(query(create(num_outputs=num_outputs), 10)["output"]) == files


def test_unknown_output_format_gives_webp() -> None:
    """An output_format that no model knows falls back to webp."""
    assert query(create(output_format="bmp"), 10)["output"][0].endswith("/0.webp")


def test_text_output_grows_while_processing() -> None:
    """A language model shows part of its tokens while still processing, as real models do."""
    prediction = create("meta/meta-llama-3-8b-instruct")
    assert query(prediction, 1)["output"] is None
    partial = query(prediction, 6)
    assert partial["status"] == "processing"
    assert partial["output"] == ["\n\n", "You said:", " a"]
    assert "".join(query(prediction, 10)["output"]) == "\n\nYou said: a b c d"


@pytest.mark.parametrize("prompt", ["something nsfw", "Something NSFW!"])
def test_nsfw_prompt_fails(prompt: str) -> None:
    """A prompt with the word nsfw makes a prediction run and then fail as a content filter does."""
    prediction = create(prompt=prompt)
    assert query(prediction, 5)["status"] == "processing"
    answer = query(prediction, 10)
    assert (answer["status"], answer["error"], answer["output"]) == ("failed", NSFW, None)


def test_output_disappears_after_retention() -> None:
    """An hour after completion the status is still succeeded, but the output is removed."""
    prediction = create()
    assert query(prediction, 3609.9)["output"]
    assert prediction.delivers(T0 + 3609.9, 3600)
    answer = query(prediction, 3610)
    assert (answer["status"], answer["output"], answer["data_removed"]) == ("succeeded", None, True)
    assert not prediction.delivers(T0 + 3610, 3600)


def test_links_name_their_end() -> None:
    """Each answer has links of its own, which can be used for so many seconds from then on."""
    prediction = create(num_outputs=2)
    for after in (10, 11.5):
        answer = query_answer(prediction, T0 + after, 3600, ORIGIN, 60)
        assert answer["output"] == [
            f"{ORIGIN}/delivery/{prediction.id}/{number}.webp?expires={T0 + after + 60:.3f}" for number in (0, 1)
        ]


def test_nothing_is_delivered_before_completion() -> None:
    """Files can be fetched only after the prediction has succeeded."""
    prediction = create()
    assert not prediction.delivers(T0 + 9.9, 3600)
    assert prediction.delivers(T0 + 10, 3600)
    assert not create(prompt="nsfw").delivers(T0 + 10, 3600)


@pytest.mark.parametrize("status", ["canceled", "aborted", "failed"])
def test_pinned_end_counts_from_the_pin(status: str) -> None:
    """A pinned terminal status ends the prediction at that moment, whatever its duration."""
    prediction = create()
    prediction.pin({"status": status, "error": "because"}, T0 + 1)
    answer = query(prediction, 1)
    assert (answer["status"], answer["error"], answer["output"]) == (status, "because", None)
    assert answer["completed_at"] == "2026-03-12T11:27:19.258Z"


def test_pinned_running_then_succeeded() -> None:
    """A prediction that is pinned as running past its end completes when it is pinned as succeeded.

    Its files are retained from then on.
    """
    prediction = create()
    prediction.pin({"status": "processing"}, T0)
    assert wrap(prediction, query(prediction, 5000), T0 + 5000)["data"]["finish_time"] == 0
    prediction.pin({"status": "succeeded"}, T0 + 5000)
    answer = query(prediction, 5001)
    assert (answer["completed_at"], answer["data_removed"]) == (iso(T0 + 5000), False)
    assert answer["output"]


def test_pinned_running_status_lasts() -> None:
    """A pinned running status never ends by itself, even if it is unknown."""
    prediction = create()
    prediction.pin({"status": "rebooting"}, T0)
    answer = query(prediction, 100)
    assert (answer["status"], answer["output"]) == ("rebooting", None)


def test_pinned_output_is_shown_as_it_is() -> None:
    """Any output can be pinned, even an empty output."""
    prediction = create()
    for output in ([], None, {"odd": 1}, "text"):
        prediction.pin({"output": output}, T0)
        assert query(prediction, 10)["output"] == output


def test_pinned_removal_empties_the_output() -> None:
    """Pinning data_removed alone removes output and files."""
    prediction = create()
    prediction.pin({"data_removed": True}, T0)
    assert query(prediction, 10)["output"] is None
    assert not prediction.delivers(T0 + 10, 3600)


@pytest.mark.parametrize("fields", [{}, {"id": "x"}, {"status": "failed", "model": "x"}, {"status": 5}])
def test_other_pins_are_refused(fields: dict[str, Any]) -> None:
    """Only the fields of a result can be pinned, and a status is a string."""
    prediction = create()
    with pytest.raises(ValueError, match="status"):
        prediction.pin(fields, T0)
    assert prediction.pinned == {}


@pytest.mark.parametrize(
    ("after", "status", "progress", "start", "finish"),
    [
        (0, "QUEUED", "0%", 0, 0),
        (5, "IN_PROGRESS", "50%", int(T0 + 2), 0),
        (10, "SUCCESS", "100%", int(T0 + 2), int(T0 + 10)),
    ],
)
def test_wrapped_answer(after: float, status: str, progress: str, start: int, finish: int) -> None:
    """The task envelope adds upper-case states and epoch seconds to the same prediction."""
    prediction = create()
    answer = query(prediction, after)
    assert wrap(prediction, answer, T0 + after) == {
        "code": "success",
        "message": "",
        "data": {
            "task_id": prediction.id,
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
    """In the envelope every unsuccessful end is FAILURE, and an unknown status is UNKNOWN."""
    prediction = create()
    prediction.pin(pins, T0)
    data = wrap(prediction, query(prediction, 0), T0)["data"]
    assert (data["status"], data["fail_reason"]) == (status, reason)
