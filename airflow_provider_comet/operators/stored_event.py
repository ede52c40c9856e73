"""What a store tells Airflow about its files: their lineage, and one event for the outlets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import AssetRef

from airflow_provider_comet.outputs.manifest import plain_uri

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import ObjectStoragePath

FILES_IN_EVENT = 50


def send_event(
    context: Context, outlets: Sequence[Any], folder: ObjectStoragePath, results: Sequence[Mapping[str, Any]]
) -> None:
    """Give the outlets of a task an event about stored predictions.

    An ``Asset`` or ``Asset.ref`` gets it as it is, an ``AssetAlias`` with the folder as asset.

    :param results: the task's results for them.
    """
    files = [
        {"uri": file["uri"], "name": result["name"], "prediction_id": result["prediction_id"]}
        for result in results
        for file in result["files"]
    ]
    extra: dict[str, Any] = {
        "prediction_ids": [result["prediction_id"] for result in results],
        "names": [result["name"] for result in results],
        "manifests": [result["manifest"] for result in results],
        "files": files[:FILES_IN_EVENT],
        "file_count": len(files),
    }
    for outlet in outlets:
        if isinstance(outlet, AssetAlias):
            context["outlet_events"][outlet].add(Asset(plain_uri(str(folder))), extra=extra)
        elif isinstance(outlet, (Asset, AssetRef)):
            context["outlet_events"][outlet].extra.update(extra)


def report_lineage(folder: ObjectStoragePath, results: Sequence[Mapping[str, Any]]) -> None:
    """Report stored files to Airflow's lineage.

    It takes a hundred URIs. Manifests go first, because they name the files.
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
    manifests = [result["manifest"] for result in results]
    for uri in [*manifests, *(file["uri"] for result in results for file in result["files"])]:
        collector.add_output_asset(context=folder, uri=plain_uri(uri))
