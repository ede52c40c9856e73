"""``CreatePredictionOperator``: submit a prediction and hand over its id."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_comet import outcome
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.hooks.comet_replicate import DEFAULT_CONN_ID, CometReplicateHook
from airflow_provider_comet.links.prediction import MODEL_XCOM_KEY, ModelLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class CreatePredictionOperator(BaseOperator):
    """Submit a prediction to CometAPI and return its id at once, without waiting for the result.

    Each accepted create costs money. It is sent once, and again only if it certainly was not accepted. The request is
    checked before it is sent; ``PredictionSensor`` waits for the result.

    Raises ``AirflowFailException`` where a retry can't help or might pay twice (wrong key, bad input, no clear answer),
    and a plain ``CometError`` where Airflow's ``retries`` can (rate limit, server unreachable).

    :param model: the model's id, ``owner/name``, for example ``black-forest-labs/flux-schnell``. (templated)
    :param input: all parameters of the model, a non-empty JSON object; what they are stands on the model's page.
        Leave keys out rather than giving ``None``. (templated)
    :param conn_id: Airflow connection of type ``cometapi``. (templated)
    """

    template_fields: Sequence[str] = ("model", "input", "conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {"input": "json"}
    operator_extra_links = (ModelLink(),)
    ui_color = "#e8e4f8"

    def __init__(self, *, model: str, input: Mapping[str, Any], conn_id: str = DEFAULT_CONN_ID, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.input = input
        self.conn_id = conn_id

    @functools.cached_property
    def hook(self) -> CometReplicateHook:
        """The hook for ``conn_id``."""
        return CometReplicateHook(self.conn_id)

    def execute(self, context: Context) -> str:
        """Submit, and return the prediction's id."""
        ti = context["ti"]
        # Before the create: if this fails, nothing was paid.
        ti.xcom_push(key=MODEL_XCOM_KEY, value=self.model)
        try:
            prediction = self.hook.create_prediction(self.model, self.input)
        except CometError as error:
            if (raised := outcome.airflow_create_error(error)) is error:
                raise
            raise raised from error
        # One line per accepted create, always of this form: spending is counted by it (never key or prompt).
        self.log.info(
            "comet.create id=%s model=%s dag=%s run=%s task=%s map=%s try=%s",
            prediction.id,
            self.model,
            ti.dag_id,
            ti.run_id,
            ti.task_id,
            ti.map_index,
            ti.try_number,
        )
        return prediction.id
