"""``DownloadPredictionOutputOperator``: store what predictions have made before their links expire."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import Asset, AssetAlias
from airflow.sdk.definitions.asset import AssetRef

from airflow_provider_comet.airflow_errors import raised_as, wait_exception
from airflow_provider_comet.api.errors import CometError, InvalidInputError, PredictionListError
from airflow_provider_comet.api.options import check_choice
from airflow_provider_comet.api.redaction import log_value
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.inputs.schema_files import output_schemas
from airflow_provider_comet.outputs.manifest import plain_uri
from airflow_provider_comet.polling import threads
from airflow_provider_comet.polling.prediction_ids import is_list, read_flat
from airflow_provider_comet.templated import TemplatedOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.outputs.writer import OutputWriter

STORED_XCOM_KEY = "stored"
DEFAULT_MAX_BYTES = 4 * 1024**3
URIS_IN_EVENT = 50
PREDICTIONS_AT_ONCE = 8


class DownloadPredictionOutputOperator(TemplatedOperator):
    """Store the files of predictions, verified and never half-written, and return where they are.

    Each file becomes ``<output_path>/<prediction id>-<index>.<extension>``; text, JSON and data URIs become files, too.
    ``<prediction id>.manifest.json`` is written last: it names every file with SHA-256 and size, and the input of the
    prediction. Files that a manifest names are not fetched again, so the task can be repeated at any time. See
    docs/outputs.md.

    Returns for one prediction ``{"prediction_id", "manifest", "files": [{"uri", "sha256", "size", "content_type",
    "name"}]}``; for a list a list of these in the same order, with null for null.

    The outlets get one event: an ``Asset`` or ``Asset.ref`` as it is, an ``AssetAlias`` with ``output_path`` as asset.
    ``extra`` holds ``prediction_ids``, ``manifests``, ``files`` (the first 50) and ``file_count``. URIs are such as
    ``ObjectStoragePath`` takes, with the connection id if ``output_path`` has one; assets and manifests have none.

    Raises ``AirflowFailException`` for what no retry changes (a failed prediction, expired links, a refused file), and
    a plain ``CometError`` where ``retries`` can help (network, storage). If the task fails because of some items of a
    list, the others are stored all the same, and XCom ``stored`` has their results.

    :param prediction: what ``PredictionSensor`` returned, for one prediction or for a list; or an id. (templated)
    :param output_path: the folder, as any URL that ``ObjectStoragePath`` takes: ``s3://aws_default@bucket/pictures``,
        ``gs://...``, ``abfs://...``, ``file:///srv/pictures``. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param max_bytes: of all files of a prediction together; more is refused. Default: 4 GiB.
    :param write_input: whether the manifest holds the prediction's input. Default: yes, data URIs as digests.
    :param on_item_error: what to do about an item of a list that no retry can store. ``fail`` (default): the task
        fails, after all other items were stored. ``keep``: null stands in its place, and the task succeeds if any
        other item was stored. What a retry may store fails the task in both cases.
    """

    template_fields: Sequence[str] = ("prediction", "output_path", "conn_id")
    ui_color = "#e8e4f8"

    def __init__(
        self,
        *,
        prediction: Any,
        output_path: str | ObjectStoragePath,
        conn_id: str = DEFAULT_CONN_ID,
        max_bytes: int = DEFAULT_MAX_BYTES,
        write_input: bool = True,
        on_item_error: Literal["fail", "keep"] = "fail",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not max_bytes >= 1:
            raise ValueError(f"max_bytes must be a positive number of bytes, not {max_bytes!r}")
        check_choice("on_item_error", on_item_error, "fail", "keep")
        self.prediction = prediction
        self.output_path = output_path
        self.conn_id = conn_id
        self.max_bytes = max_bytes
        self.write_input = write_input
        self.on_item_error = on_item_error
        self._writer: OutputWriter | None = None

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> dict[str, Any] | list[dict[str, Any] | None]:
        """Store all predictions, then report them to Airflow's lineage and to the outlets."""
        from airflow_provider_comet.outputs.download import Downloader  # loads requests: not while DAGs are parsed
        from airflow_provider_comet.outputs.writer import OutputWriter

        with raised_as(wait_exception):
            items = self._resolve(context)
            folder = self._folder()
            summaries = [item for item in (items if isinstance(items, list) else [items]) if isinstance(item, Mapping)]
            with (
                Downloader(self.hook.config) as downloader,
                OutputWriter(
                    folder,
                    self.hook.get_prediction,
                    downloader,
                    max_bytes=self.max_bytes,
                    write_input=self.write_input,
                    stored_by=_task_identity(context),
                    find_schema=output_schemas(str(item.get("model")) for item in summaries),
                ) as writer,
            ):
                self._writer = writer
                if not isinstance(items, list):
                    result = writer.store(items)
                    _report_lineage(folder, [result])
                    self._send_asset_events(context, folder, [result])
                    return result
                stored, errors = self._store_all(writer, items)
            _report_lineage(folder, [*stored.values()])
            results = [stored.get(_id(item)) if _is_prediction(item) else None for item in items]
            if errors:
                error = PredictionListError.of(errors, len(stored) + len(errors))
                if self.on_item_error == "fail" or not stored or not _are_final(errors):
                    context["ti"].xcom_push(key=STORED_XCOM_KEY, value=results)
                    raise error
            self._send_asset_events(context, folder, [*stored.values()])
            return results

    def on_kill(self) -> None:
        """Abort all downloads, so that no partial file stays."""
        if self._writer is not None:
            self._writer.abort()

    def _resolve(self, context: Context) -> Any:
        """Return a prediction, or a list of them, as another task returned it."""
        # Of a list, each item is refused for itself: the others are to be stored.
        resolved = read_flat(self.prediction, context) if is_list(self.prediction) else self.rendered("prediction")
        items = resolved if isinstance(resolved, list) else [resolved]
        if not any(item is not None for item in items):
            raise InvalidInputError(
                "prediction holds nothing to store; if that is right, let a branch or a short circuit skip this task"
            )
        if not isinstance(resolved, list) and not _is_prediction(resolved):
            raise _not_a_prediction(resolved, "prediction", ", or a list of these")
        return resolved

    def _folder(self) -> ObjectStoragePath:
        from airflow.sdk import ObjectStoragePath

        folder = ObjectStoragePath(self.rendered("output_path"))
        # A relative folder would be lost with its worker.
        if not folder.protocol and not folder.path.startswith("/"):
            raise InvalidInputError(
                f"output_path must be a URL such as 's3://bucket/folder' or an absolute path; got {self.output_path!r}"
            )
        _ = folder.fs  # reads Airflow's connection here, because threads can't
        return folder

    def _store_all(self, writer: OutputWriter, items: list[Any]) -> tuple[dict[str, dict[str, Any]], list[CometError]]:
        """Store each distinct prediction; return the results by id, and the errors of the others."""
        predictions = {_id(item): item for item in items if _is_prediction(item)}
        self.hook.get_conn()  # makes the client here, because threads can't read Airflow's connection

        def store(prediction: Any) -> dict[str, Any] | CometError:
            try:
                return writer.store(prediction)
            except CometError as error:
                return error
            except Exception as error:  # one item must not stop the others
                self.log.exception("Prediction %s could not be stored", log_value(_id(prediction)))
                return CometError(f"{type(error).__name__}: {error}", prediction_id=_id(prediction))

        with threads.Pool(PREDICTIONS_AT_ONCE, "comet-prediction") as pool:
            try:
                outcomes = dict(zip(predictions, pool.map(store, predictions.values()), strict=True))
            except BaseException:
                writer.abort()  # the pool waits for its threads
                raise
        errors = [outcome for outcome in outcomes.values() if isinstance(outcome, CometError)]
        errors += [
            _not_a_prediction(item, f"prediction[{index}]")
            for index, item in enumerate(items)
            if item is not None and not _is_prediction(item)
        ]
        for error in errors:
            self.log.warning("%s", error)
        stored = {key: outcome for key, outcome in outcomes.items() if not isinstance(outcome, CometError)}
        return stored, errors

    def _send_asset_events(
        self, context: Context, folder: ObjectStoragePath, results: Sequence[Mapping[str, Any]]
    ) -> None:
        uris = [file["uri"] for result in results for file in result["files"]]
        extra: dict[str, Any] = {
            "prediction_ids": [result["prediction_id"] for result in results],
            "manifests": [result["manifest"] for result in results],
            "files": uris[:URIS_IN_EVENT],
            "file_count": len(uris),
        }
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(Asset(plain_uri(str(folder))), extra=extra)
            elif isinstance(outlet, (Asset, AssetRef)):
                context["outlet_events"][outlet].extra.update(extra)


def _are_final(errors: Sequence[CometError]) -> bool:
    """Whether no retry can help any of these."""
    return all(wait_exception(error) is not error for error in errors)


def _report_lineage(folder: ObjectStoragePath, results: Sequence[Mapping[str, Any]]) -> None:
    """Report the stored files to Airflow's lineage.

    It takes a hundred URIs. Manifests go first, because they name the files.
    """
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
    manifests = [result["manifest"] for result in results]
    for uri in [*manifests, *(file["uri"] for result in results for file in result["files"])]:
        collector.add_output_asset(context=folder, uri=plain_uri(uri))


def _is_prediction(item: Any) -> bool:
    return isinstance(item, (str, Mapping))


def _not_a_prediction(item: Any, name: str, more: str = "") -> InvalidInputError:
    hint = "; its lists are nested too deeply" if is_list(item) else ""
    return InvalidInputError(
        f"{name} must be what PredictionSensor has returned, or an id{more}; got a value of type "
        f"{type(item).__name__}{hint}"
    )


def _id(prediction: Any) -> str:
    return str(prediction.get("id") if isinstance(prediction, Mapping) else prediction)


def _task_identity(context: Context) -> dict[str, Any]:
    ti = context["ti"]
    return {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")}
