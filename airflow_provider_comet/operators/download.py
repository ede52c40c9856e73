"""``DownloadPredictionOutputOperator``: store what predictions have made before their links expire."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import Asset, AssetAlias, BaseOperator
from airflow.sdk.definitions.asset import AssetRef

from airflow_provider_comet import airflow_errors as outcome
from airflow_provider_comet.api.errors import CometError, InvalidInputError, PredictionListError
from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook
from airflow_provider_comet.hooks.connection import DEFAULT_CONN_ID
from airflow_provider_comet.outputs.manifest import plain_uri
from airflow_provider_comet.polling.prediction_ids import is_list, read_items

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context
    from airflow.sdk import ObjectStoragePath

    from airflow_provider_comet.outputs.writer import Archive

STORED_XCOM_KEY = "stored"
DEFAULT_MAX_BYTES = 4 * 1024**3
URIS_IN_EVENT = 50


class DownloadPredictionOutputOperator(BaseOperator):
    """Store the files of predictions, verified and never half-written, and return where they are.

    Each file becomes ``<output_path>/<prediction id>-<index>.<extension>``; text, JSON and data URIs become files, too.
    ``<prediction id>.manifest.json`` is written last: it names every file with SHA-256 and size, and what it was made
    from. What a manifest says is there is not fetched again, so the task can be repeated at any time. docs/outputs.md.

    Returns, for a prediction, ``{"prediction_id", "manifest", "files": [{"uri", "sha256", "size", "content_type"}]}``;
    for a list, a list of these in the same order, with null for null. If some of a list can't be stored, the others
    are: XCom ``stored`` has them, and the task fails with the reasons.

    Its outlets get one event: an ``Asset`` or ``Asset.ref`` as it is, an ``AssetAlias`` with ``output_path`` as asset.
    ``extra`` holds ``prediction_ids``, ``manifests``, ``files`` (the first 50) and ``file_count``. URIs are such as
    ``ObjectStoragePath`` takes, with the connection id if ``output_path`` has one; assets and manifests have none.

    Raises ``AirflowFailException`` for what no retry changes (a prediction that failed, links that have expired, a file
    that is refused), and a plain ``CometError`` where ``retries`` can help (network, storage).

    :param prediction: what ``PredictionSensor`` has returned, for one prediction or for a list; an id does as well.
        (templated)
    :param output_path: the folder, as any URL that ``ObjectStoragePath`` takes: ``s3://aws_default@bucket/pictures``,
        ``gs://...``, ``abfs://...``, ``file:///srv/pictures``. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    :param max_bytes: a file that is larger is refused. Default: 4 GiB.
    :param write_input: whether the manifest holds the prediction's input. Default: yes, data URIs as digests.
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
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not max_bytes >= 1:
            raise ValueError(f"max_bytes must be a positive number of bytes, not {max_bytes!r}")
        self.prediction = prediction
        self.output_path = output_path
        self.conn_id = conn_id
        self.max_bytes = max_bytes
        self.write_input = write_input
        self._archive: Archive | None = None

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> dict[str, Any] | list[dict[str, Any] | None]:
        """Store all of it, then say so to whoever waits for the outlets."""
        from airflow_provider_comet.outputs.download import Delivery  # loads requests: not while DAGs are parsed
        from airflow_provider_comet.outputs.writer import Archive

        with outcome.raised_as(outcome.wait_exception):
            given = self._given(context)
            folder = self._folder()
            with (
                Delivery(self.hook.config) as delivery,
                Archive(
                    folder,
                    self.hook,
                    delivery,
                    max_bytes=self.max_bytes,
                    write_input=self.write_input,
                    stored_by=_identity(context),
                ) as archive,
            ):
                self._archive = archive
                if not isinstance(given, list):
                    stored = archive.keep(given)
                    _report_lineage(folder, [stored])
                    self._announce(context, folder, [stored])
                    return stored
                kept, errors = self._keep_all(archive, given)
            _report_lineage(folder, [*kept.values()])
            results = [kept.get(_id(one)) if _is_prediction(one) else None for one in given]
            if errors:
                context["ti"].xcom_push(key=STORED_XCOM_KEY, value=results)
                raise PredictionListError.of(errors, len(kept) + len(errors))
            self._announce(context, folder, [*kept.values()])
            return results

    def on_kill(self) -> None:
        """Give up what is on its way, so that nothing half-written stays."""
        if self._archive is not None:
            self._archive.end()

    def _given(self, context: Context) -> Any:
        given = read_items(self.prediction, context) if is_list(self.prediction) else self.prediction
        items = given if isinstance(given, list) else [given]
        if not any(one is not None for one in items):
            raise InvalidInputError(
                "prediction holds nothing to store; if that is right, let a branch or a short circuit skip this task"
            )
        if not isinstance(given, list) and not _is_prediction(given):
            raise _no_prediction(given, "prediction", ", or a list of these")
        return given

    def _folder(self) -> ObjectStoragePath:
        from airflow.sdk import ObjectStoragePath

        folder = ObjectStoragePath(self.output_path)
        # A template that renders to nothing is the text "None", and a folder of that name on some worker is lost.
        if not folder.protocol and not folder.path.startswith("/"):
            raise InvalidInputError(
                f"output_path must be a URL such as 's3://bucket/folder' or an absolute path; got {self.output_path!r}"
            )
        assert folder.fs is not None  # reads Airflow's connection: threads can't
        return folder

    def _keep_all(self, archive: Archive, given: list[Any]) -> tuple[dict[str, dict[str, Any]], list[CometError]]:
        distinct = {_id(one): one for one in given if _is_prediction(one)}
        assert self.hook.client is not None  # as above

        def keep(one: Any) -> dict[str, Any] | CometError:
            try:
                return archive.keep(one)
            except CometError as error:
                return error
            except Exception as error:  # one that fails must not stop the others
                self.log.exception("Prediction %s could not be stored", _id(one))
                return CometError(f"{type(error).__name__}: {error}", prediction_id=_id(one))

        with ThreadPoolExecutor(8, "comet-prediction") as pool:
            try:
                ended = dict(zip(distinct, pool.map(keep, distinct.values()), strict=True))
            except BaseException:
                archive.end()  # the pool waits for its threads
                raise
        errors = [one for one in ended.values() if isinstance(one, CometError)]
        wrong = [(index, one) for index, one in enumerate(given) if one is not None and not _is_prediction(one)]
        errors += [_no_prediction(one, f"prediction[{index}]") for index, one in wrong]
        for error in errors:
            self.log.warning("%s", error)
        return {one: end for one, end in ended.items() if not isinstance(end, CometError)}, errors

    def _announce(self, context: Context, folder: ObjectStoragePath, stored: Sequence[Mapping[str, Any]]) -> None:
        """One event for each outlet."""
        uris = [file["uri"] for one in stored for file in one["files"]]
        extra: dict[str, Any] = {
            "prediction_ids": [one["prediction_id"] for one in stored],
            "manifests": [one["manifest"] for one in stored],
            "files": uris[:URIS_IN_EVENT],
            "file_count": len(uris),
        }
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                context["outlet_events"][outlet].add(Asset(plain_uri(str(folder))), extra=extra)
            elif isinstance(outlet, (Asset, AssetRef)):
                context["outlet_events"][outlet].extra.update(extra)


def _report_lineage(folder: ObjectStoragePath, stored: Sequence[Mapping[str, Any]]) -> None:
    """Tell Airflow's lineage what there is now. Manifests come first: it takes a hundred, and they name the files."""
    from airflow.providers.common.compat.lineage.hook import get_hook_lineage_collector

    collector = get_hook_lineage_collector()  # type: ignore[no-untyped-call]
    for uri in [*(one["manifest"] for one in stored), *(file["uri"] for one in stored for file in one["files"])]:
        collector.add_output_asset(context=folder, uri=plain_uri(uri))


def _is_prediction(given: Any) -> bool:
    return isinstance(given, (str, Mapping))


def _no_prediction(given: Any, name: str, more: str = "") -> InvalidInputError:
    return InvalidInputError(
        f"{name} must be what PredictionSensor has returned, or an id{more}; got a value of type {type(given).__name__}"
    )


def _id(given: Any) -> str:
    return str(given.get("id") if isinstance(given, Mapping) else given)


def _identity(context: Context) -> dict[str, Any]:
    ti = context["ti"]
    return {name: getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index", "try_number")}
