"""What Airflow shows of this package. Imports nothing of Airflow: it is read while Airflow discovers its providers."""

from __future__ import annotations

from typing import Any

# The form heeds "minimum" only: its arrows stop there, and what is below becomes 0.
_ABOVE_0 = {"type": ["number", "null"], "exclusiveMinimum": 0, "minimum": 0}

CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": "cometapi",
    "hook-class-name": "airflow_provider_comet.hooks.comet_replicate.CometReplicateHook",
    "hook-name": "CometAPI",
    "ui-field-behaviour": {
        "hidden-fields": ["schema", "login", "port"],
        "relabeling": {"password": "API key", "host": "Base URL"},
        "placeholders": {
            "host": "https://api.cometapi.com",
            "password": "sk-...",
        },
    },
    "conn-fields": {
        "connect_timeout": {
            "label": "Connect timeout (s)",
            "description": "How long it may take to connect. Default: 10.",
            "schema": _ABOVE_0,
        },
        "read_timeout": {
            "label": "Read timeout (s)",
            "description": "How long the API may stay silent before it is given up; it may need over 45. Default: 75.",
            "schema": _ABOVE_0,
        },
        "max_polls_per_second": {
            "label": "Looks per second",
            "description": "How often one process may look at waiting predictions, all of them together. Default: 50.",
            "schema": _ABOVE_0,
        },
        "output_hosts": {
            "label": "Output hosts",
            "description": "Where files may be fetched from: hosts with commas between them, *.example.com for all "
            "below example.com. Default: any public host.",
            "schema": {"type": ["string", "null"]},
        },
    },
}


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata (``provider_info.schema.json`` of Airflow describes it)."""
    name = "CometAPI"
    return {
        "package-name": "airflow-provider-comet",
        "name": name,
        "description": "Run CometAPI's image, video and text models without holding a worker while they work.",
        "integrations": [
            {"integration-name": name, "external-doc-url": "https://apidoc.cometapi.com", "tags": ["service", "ai"]}
        ],
        "hooks": [{"integration-name": name, "python-modules": ["airflow_provider_comet.hooks.comet_replicate"]}],
        "operators": [
            {
                "integration-name": name,
                "python-modules": [
                    "airflow_provider_comet.operators.prediction",
                    "airflow_provider_comet.operators.batch",
                    "airflow_provider_comet.operators.download",
                ],
            }
        ],
        "sensors": [{"integration-name": name, "python-modules": ["airflow_provider_comet.sensors.prediction"]}],
        "triggers": [{"integration-name": name, "python-modules": ["airflow_provider_comet.triggers.prediction"]}],
        "task-decorators": [
            {"name": "comet_prediction", "class-name": "airflow_provider_comet.decorators.prediction.comet_prediction"}
        ],
        "extra-links": ["airflow_provider_comet.links.prediction.ModelLink"],
        "connection-types": [CONNECTION_TYPE],
        "config": {
            "comet": {
                "description": "Settings of the CometAPI provider.",
                "options": {
                    "input_schemas": {
                        "description": "A folder (a path, or a URL that ObjectStoragePath takes) with a schema for "
                        "each model whose inputs are to be checked before they are paid for: <owner>/<name>.json.",
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/opt/airflow/schemas",
                        "default": "",
                    }
                },
            }
        },
    }
