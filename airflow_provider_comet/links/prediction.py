"""Links that Airflow's UI shows for a task."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_comet.api.validation import MODEL_PATTERN

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseOperator, TaskInstanceKey

MODEL_XCOM_KEY = "model"


class ModelLink(BaseOperatorLink):
    """Link to the model's public page, which describes its input parameters.

    The model comes from an XCom, because Airflow builds links with a new operator whose fields are not rendered. There
    is no link to the prediction itself: the page that the API names belongs to the gateway's account.
    """

    name = "Model"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the page's URL, or an empty text before the task has run."""
        model = XCom.get_value(ti_key=ti_key, key=MODEL_XCOM_KEY)
        if not isinstance(model, str) or not re.fullmatch(MODEL_PATTERN, model):
            return ""
        return f"https://replicate.com/{model}"
