"""``operators/stored_event.py``: what Airflow is told of stored files. ``test_download.py`` has whole tasks."""

from __future__ import annotations

from typing import Any


def result_of(prediction_id: str, name: str | None, files: int) -> dict[str, Any]:
    uris = [f"s3://store@bucket/{prediction_id}-{index}.webp" for index in range(files)]
    manifest = f"s3://store@bucket/{prediction_id}.manifest.json"
    return {"prediction_id": prediction_id, "name": name, "manifest": manifest, "files": [{"uri": uri} for uri in uris]}


def extra_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    from airflow.sdk import Asset, ObjectStoragePath
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_comet.operators.stored_event import send_event

    pictures = Asset("pictures")
    context: Any = {"outlet_events": OutletEventAccessors()}
    send_event(context, [pictures, "something else"], ObjectStoragePath("file:///tmp/pictures"), results)
    extra: dict[str, Any] = context["outlet_events"][pictures].extra
    return extra


def test_each_file_has_its_name() -> None:
    """A file is found with the user's name for its prediction, and with the prediction, without a manifest."""
    extra = extra_of([result_of("abc", "B-17", 2), result_of("def", None, 1)])
    assert [(file["uri"][-10:], file["name"], file["prediction_id"]) for file in extra["files"]] == [
        ("abc-0.webp", "B-17", "abc"),
        ("abc-1.webp", "B-17", "abc"),
        ("def-0.webp", None, "def"),
    ]
    assert (extra["prediction_ids"], extra["names"], extra["file_count"]) == (["abc", "def"], ["B-17", None], 3)


def test_an_event_stays_small() -> None:
    """It names the first fifty files, and counts all of them."""
    extra = extra_of([result_of("abc", "B-17", 49), result_of("def", "B-18", 3)])
    assert (len(extra["files"]), extra["files"][-1]["prediction_id"], extra["file_count"]) == (50, "def", 52)
