"""``operators/stored_event.py``: what Airflow is told of stored files. ``test_download.py`` has whole tasks."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest


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


def test_the_event_is_plain_json() -> None:
    """It goes through Airflow's database, and has these fields and no others."""
    extra = extra_of([result_of("abc", "B-17", 1)])
    assert json.loads(json.dumps(extra)) == {
        "prediction_ids": ["abc"],
        "names": ["B-17"],
        "manifests": ["s3://store@bucket/abc.manifest.json"],
        "files": [{"uri": "s3://store@bucket/abc-0.webp", "name": "B-17", "prediction_id": "abc"}],
        "file_count": 1,
    }


def test_a_prediction_without_files() -> None:
    """Its output may be empty; it is named all the same."""
    extra = extra_of([result_of("abc", None, 0)])
    assert (extra["prediction_ids"], extra["files"], extra["file_count"]) == (["abc"], [], 0)


def test_an_alias_gets_the_folder() -> None:
    """The asset behind an alias is the folder, without the connection id that the task's URL has."""
    from airflow.sdk import AssetAlias, ObjectStoragePath
    from airflow.sdk.execution_time.context import OutletEventAccessors

    from airflow_provider_comet.operators.stored_event import send_event

    alias = AssetAlias("new-pictures")
    context: Any = {"outlet_events": OutletEventAccessors()}
    folder = ObjectStoragePath("file://store@/tmp/pictures")
    send_event(context, [alias], folder, [result_of("abc", None, 1)])
    (event,) = context["outlet_events"][alias].asset_alias_events
    assert (event.source_alias_name, event.dest_asset_key.uri) == ("new-pictures", "file:///tmp/pictures")
    assert (event.extra["prediction_ids"], event.extra["file_count"]) == (["abc"], 1)


def test_no_outlets() -> None:
    """A task without outlets has no event, and asks Airflow for none."""
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.operators.stored_event import send_event

    context: Any = SimpleNamespace()  # has no items: to ask for one would be an error
    send_event(context, [], ObjectStoragePath("file:///tmp/pictures"), [result_of("abc", None, 1)])


def test_lineage_has_the_manifests_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A collector takes a hundred URIs: of a long list the manifests, which name the files. No URI has a connection."""
    from airflow.providers.common.compat.lineage import hook
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.operators.stored_event import report_lineage

    uris: list[str] = []
    collector = SimpleNamespace(add_output_asset=lambda context, uri: uris.append(uri))
    monkeypatch.setattr(hook, "get_hook_lineage_collector", lambda: collector)
    report_lineage(ObjectStoragePath("file:///tmp/pictures"), [result_of("abc", "x", 1), result_of("def", None, 1)])
    assert uris == [
        "s3://bucket/abc.manifest.json",
        "s3://bucket/def.manifest.json",
        "s3://bucket/abc-0.webp",
        "s3://bucket/def-0.webp",
    ]


def test_an_asset_that_is_given_by_name() -> None:
    """It gets the event as an asset does, and keeps what the task itself has put there."""
    from airflow.sdk import Asset, ObjectStoragePath

    from airflow_provider_comet.operators.stored_event import send_event

    reference = Asset.ref(name="pictures")
    event = SimpleNamespace(extra={"season": "winter"})
    context: Any = {"outlet_events": {reference: event}}
    send_event(context, [reference], ObjectStoragePath("file:///tmp/pictures"), [result_of("abc", None, 1)])
    assert (event.extra["season"], event.extra["prediction_ids"]) == ("winter", ["abc"])
