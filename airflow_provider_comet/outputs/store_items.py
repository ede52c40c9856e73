"""``StoreItems``: what a task was given to store, and the names for it. Pure."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from airflow_provider_comet.api.errors import CometError, InvalidInputError
from airflow_provider_comet.api.outcome import id_of
from airflow_provider_comet.api.portable import carried_text
from airflow_provider_comet.api.statuses import is_terminal
from airflow_provider_comet.api.validation import check_prediction_id

log = logging.getLogger(__name__)


class StoreItems:
    """Predictions in the order given, each with its name.

    :param value: an id, what a wait has returned, or a list of these, in which null stays null.
    :param names: a text for each, or null; for a single prediction the text alone.
    :raises InvalidInputError: there is nothing to store, or the names do not fit. An item of a list that is no
        prediction is only an error of its own (``errors``): the others are to be stored.
    :ivar ids: each prediction once.
    :ivar summaries: what a wait has returned of a prediction that has ended, by id.
    :ivar errors: of items that are no predictions.
    """

    def __init__(self, value: Any, names: Any = None) -> None:
        self.is_list = isinstance(value, list)
        items = value if isinstance(value, list) else [value]
        if not any(item is not None for item in items):
            raise InvalidInputError(
                "prediction holds nothing to store; if that is right, let a branch or a short circuit skip this task"
            )
        self._names = _check_names(names, len(items))
        self._ids: list[str | None] = []
        self.errors: list[CometError] = []
        self.summaries: dict[str, Mapping[str, Any]] = {}
        for index, item in enumerate(items):
            try:
                self._ids.append(None if item is None else self._read(item, index))
            except InvalidInputError as error:
                if not self.is_list:
                    raise
                log.warning("%s", error)
                self._ids.append(None)
                self.errors.append(error)
        self.ids = [*dict.fromkeys(key for key in self._ids if key is not None)]

    @property
    def names(self) -> dict[str, str]:
        """The name of each prediction that has one. The first counts if a prediction is in the list twice."""
        pairs = zip(reversed(self._ids), reversed(self._names), strict=True)
        return {key: name for key, name in pairs if key is not None and name is not None}

    def in_order(self, results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any] | None]:
        """Return the result of each item, with its name; null for an item without a result.

        :param results: by prediction id.
        """
        found = [None if key is None else results.get(key) for key in self._ids]
        return [
            None if result is None else {"prediction_id": result["prediction_id"], "name": name, **result}
            for result, name in zip(found, self._names, strict=True)
        ]

    def _read(self, item: Any, index: int) -> str:
        if not isinstance(item, (str, Mapping)):
            name, more = (f"prediction[{index}]", "") if self.is_list else ("prediction", ", or a list of these")
            hint = "; its lists are nested too deeply" if isinstance(item, (list, tuple)) else ""
            raise InvalidInputError(
                f"{name} must be what PredictionSensor has returned, or an id{more}; got a value of type "
                f"{type(item).__name__}{hint}"
            )
        key = check_prediction_id(id_of(item))
        if isinstance(item, Mapping) and is_terminal(str(item.get("status"))):
            self.summaries.setdefault(key, item)
        return key


def _check_names(names: Any, count: int) -> list[str | None]:
    if names is None:
        return [None] * count
    given = [names] if isinstance(names, str) else names
    if not isinstance(given, Sequence):
        raise InvalidInputError(f"names must be a list of texts; got a value of type {type(names).__name__}")
    if len(given) != count:
        raise InvalidInputError(
            f"names has {len(given)} items, and prediction has {count}: give a name for each, or null. (A mapped task "
            "leaves out instances that failed.)"
        )
    for index, name in enumerate(given):
        if name is not None and not isinstance(name, str):
            raise InvalidInputError(f"names[{index}] must be text, or null; got {type(name).__name__}: use str(...)")
    return [None if name is None else carried_text(name) for name in given]
