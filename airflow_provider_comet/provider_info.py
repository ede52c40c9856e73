"""The metadata that Airflow shows of this package.

It imports nothing of Airflow, which reads it while it discovers its providers.
"""

from __future__ import annotations

from typing import Any

# The form applies only "minimum": its arrows stop there, and a lower number becomes 0.
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
            "description": "How many seconds a connection attempt may take. Default: 10.",
            "schema": _ABOVE_0,
        },
        "read_timeout": {
            "label": "Read timeout (s)",
            "description": "How many seconds to wait for a response; the API may need over 45. Default: 75.",
            "schema": _ABOVE_0,
        },
        "max_polls_per_second": {
            "label": "Polls per second",
            "description": "How many polls one process may send per second, all waits together. Default: 50.",
            "schema": _ABOVE_0,
        },
        "output_hosts": {
            "label": "Output hosts",
            "description": "Hosts from which files may be downloaded, separated by commas; *.example.com for all hosts "
            "below example.com, http://minio:9000 for a host without https. Default: any public host.",
            "schema": {"type": ["string", "null"]},
        },
        "allow_insecure_http": {
            "label": "Allow insecure http",
            "description": "Allow a base URL with http: everybody on the way can read the API key. For the emulator in "
            "another container. Default: only https, and http on this machine.",
            "schema": {"type": ["boolean", "null"]},
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
