"""Check an input before anything is paid, and make the request that creates its prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.errors import InvalidInputError
from airflow_provider_comet.api.validation import check_create
from airflow_provider_comet.inputs.input_files import check_files, embed_files

if TYPE_CHECKING:
    from airflow_provider_comet.inputs.schemas import InputSchema


def check_input(model: object, input: object, schema: InputSchema | None, *, strict: bool) -> list[str]:
    """Check an input without loading its files, and return warnings about keys that its schema does not know.

    A batch calls this for all its inputs before the first create. Each file must be readable and small enough to be
    sent; one byte of it is read.

    :param model: ``owner/name``.
    :param input: the model's parameters, with an ``ObjectStoragePath`` for each file.
    :param schema: what the model takes; ``None``: only the rules that hold for every model are checked.
    :param strict: refuse keys that the schema does not know.
    :raises InvalidInputError: the create can only fail, the input does not fit the schema, or ``strict`` has no schema.
    :raises InputFileError: a file can't be read now.
    """
    complete = check_files(input)
    check_create(model, complete)
    return _check_schema(model, complete, schema, strict=strict)


def prepare_request(
    model: object, input: object, schema: InputSchema | None, *, strict: bool
) -> tuple[protocol.Request, list[str]]:
    """Return the request that creates a prediction, and warnings about keys that the schema does not know.

    Each file is read once, and everything is checked once.

    :param model: as for ``check_input``, which also describes the other parameters and the errors.
    :raises InputFileError: a file can't be read now.
    """
    complete = embed_files(input)
    # First the contract that holds for every model: a schema says less of an input that is no object.
    request = protocol.create_prediction(model, complete)
    return request, _check_schema(model, complete, schema, strict=strict)


def _check_schema(model: object, input: Mapping[str, Any], schema: InputSchema | None, *, strict: bool) -> list[str]:
    """Check an input by its schema, and return warnings about keys that the schema does not know.

    :raises InvalidInputError: the input does not fit the schema, or ``strict`` has no schema.
    """
    if schema is None:
        if strict:
            raise InvalidInputError(
                f"strict=True, but there is no schema for {model}: give input_schema, or put {model}.json into the "
                "folder that Airflow's setting [comet] input_schemas names"
            )
        return []
    schema.check(input, strict=strict)
    return [f"{warning}; it is sent anyway (strict=True refuses it)" for warning in schema.unknown_keys(input)]
