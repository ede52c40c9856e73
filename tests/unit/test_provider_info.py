"""``provider_info.py``: the metadata of the package, and what the `airflow providers` commands show of it."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_comet.provider_info import CONNECTION_TYPE, get_provider_info

DISTRIBUTION = "airflow-provider-comet"
INFO = get_provider_info()


def test_valid_by_airflows_schema() -> None:
    """One violation of Airflow's schema would break the discovery of all providers of a deployment."""
    import jsonschema

    schema = json.loads(files("airflow").joinpath("provider_info.schema.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    assert [error.message for error in validator.iter_errors(INFO)] == []
    # The schema lets unknown keys pass, so a misspelt key would be silently ignored.
    assert set(INFO) <= set(schema["properties"])


def test_importing_it_imports_nothing_of_airflow() -> None:
    """Airflow reads the metadata while it discovers providers: an import of Airflow there would be circular."""
    code = (
        "import sys; from airflow_provider_comet.provider_info import get_provider_info as f; f()\n"
        "print(*sorted(n for n in sys.modules if n.split('.')[0] in {'airflow', 'requests', 'aiohttp', 'jsonschema'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("kind", ["hooks", "operators", "sensors", "triggers"])
def test_every_listed_module_can_be_imported(kind: str) -> None:
    """Each list names at least one module, and every named module exists."""
    modules = [name for entry in INFO[kind] for name in entry["python-modules"]]
    assert modules
    for name in modules:
        assert importlib.import_module(name).__name__ == name


def test_every_module_of_these_kinds_is_listed() -> None:
    """Airflow does not know a module that is in the folder but not in the list."""
    package = Path(str(files("airflow_provider_comet")))
    for kind in ("hooks", "operators", "sensors", "triggers"):
        there = {f"airflow_provider_comet.{kind}.{path.stem}" for path in (package / kind).glob("[!_]*.py")}
        there -= {
            "airflow_provider_comet.hooks.connection",
            "airflow_provider_comet.hooks.refreshing_client",
            "airflow_provider_comet.hooks.shared_client",
            "airflow_provider_comet.operators.store_attempt",
            "airflow_provider_comet.operators.stored_event",
            "airflow_provider_comet.sensors.results",
            "airflow_provider_comet.triggers.deferral",
            "airflow_provider_comet.triggers.start",
            "airflow_provider_comet.triggers.task_wait",
        }  # modules that only this package uses
        assert there == {name for entry in INFO[kind] for name in entry["python-modules"]}


@pytest.mark.parametrize("path", [*INFO["extra-links"], CONNECTION_TYPE["hook-class-name"]])
def test_every_listed_class_exists(path: str) -> None:
    """Class paths in the metadata lead to classes."""
    module, _, name = path.rpartition(".")
    assert isinstance(getattr(importlib.import_module(module), name), type)


def test_the_decorators_are_there() -> None:
    """Each path leads to a callable, and Airflow's `task` has it under its name."""
    from airflow.sdk import task

    decorators = {entry["name"]: entry["class-name"] for entry in INFO["task-decorators"]}
    assert set(decorators) == {"comet_prediction"}
    for name, path in decorators.items():
        module, _, attribute = path.rpartition(".")
        made = getattr(importlib.import_module(module), attribute)
        assert callable(made)
        assert getattr(task, name) is made


def test_airflow_knows_the_settings() -> None:
    """Airflow learns the settings from the metadata, and refuses to read a setting that is not there."""
    from airflow.providers.common.compat.sdk import AirflowConfigException, conf

    from airflow_provider_comet.inputs.schema_files import OPTION, SECTION

    assert {section: set(described["options"]) for section, described in INFO["config"].items()} == {SECTION: {OPTION}}
    assert conf.get(SECTION, OPTION) == ""
    with pytest.raises(AirflowConfigException):
        conf.get(SECTION, "no_such_setting")


def test_hook_agrees_with_the_connection_type() -> None:
    """Airflow drops a connection type if its hook has another name for it."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook as Hook

    assert (Hook.conn_type, Hook.hook_name) == (CONNECTION_TYPE["connection-type"], CONNECTION_TYPE["hook-name"])
    assert (Hook.conn_name_attr, Hook.default_conn_name) == ("conn_id", "cometapi_default")
    assert "-" not in Hook.conn_type
    assert "__" not in Hook.conn_type


def test_form_for_older_airflow_is_the_same_form() -> None:
    """Airflow < 3.2 reads the form from the hook, which returns the metadata in Airflow's older spelling."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    declared = CONNECTION_TYPE["ui-field-behaviour"]
    form = CometReplicateHook.get_ui_field_behaviour()
    assert form == {
        "hidden_fields": declared["hidden-fields"],
        "relabeling": declared["relabeling"],
        "placeholders": declared["placeholders"],
    }
    schema = json.loads(files("airflow").joinpath("customized_form_field_behaviours.schema.json").read_text())
    import jsonschema

    jsonschema.validate(form, schema)


def test_form_fields_are_the_extras_that_the_hook_reads() -> None:
    """Each field of the form has a label and a help text with its default, and no number goes below 0."""
    from airflow_provider_comet.api.config import EXTRAS, NUMERIC_EXTRAS, Config

    defaults = Config(api_key="sk-form-field")
    fields = CONNECTION_TYPE["conn-fields"]
    assert set(fields) == set(EXTRAS)
    assert all(described["label"] and described["description"] for described in fields.values())
    for name in NUMERIC_EXTRAS:
        assert f"Default: {getattr(defaults, name):g}." in fields[name]["description"]
        assert fields[name]["schema"]["minimum"] == 0
    assert {"password", "host"} <= set(CONNECTION_TYPE["ui-field-behaviour"]["relabeling"])


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run `airflow providers ...` as a user does, in its own process, and return what it prints."""
    try:
        version(DISTRIBUTION)
    except PackageNotFoundError:
        pytest.fail(f"{DISTRIBUTION} is not installed in this environment: pip install -e '.[dev]'")
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "COLUMNS": "300"}

    def cli(*arguments: str) -> str:
        command = [str(Path(sys.executable).parent / "airflow"), "providers", *arguments]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return cli


def parsed(text: str) -> list[dict[str, Any]]:
    """Return the JSON that a command printed after any log lines."""
    entries: list[dict[str, Any]] = json.loads(text[text.index("[{") :])
    return entries


def test_airflow_providers_get(cli: Any) -> None:
    """`airflow providers get` shows name, version and metadata."""
    assert parsed(cli("get", DISTRIBUTION, "--output", "json")) == [
        {"Provider": DISTRIBUTION, "Version": version(DISTRIBUTION)}
    ]
    (full,) = parsed(cli("get", DISTRIBUTION, "--full", "--output", "json"))
    assert full["description"].rstrip(".") == INFO["description"].rstrip(".")  # Airflow drops the full stop
    assert full["extra-links"] == INFO["extra-links"]


def test_airflow_providers_hooks(cli: Any) -> None:
    """`airflow providers hooks` imports the hook and accepts its connection type."""
    (shown,) = [hook for hook in parsed(cli("hooks", "--output", "json")) if hook["connection_type"] == "cometapi"]
    assert shown["class"] == CONNECTION_TYPE["hook-class-name"]
    assert shown["conn_id_attribute_name"] == "conn_id"
    assert shown["package_name"] == DISTRIBUTION
    assert shown["hook_name"] == "CometAPI"


def test_airflow_providers_links(cli: Any) -> None:
    """`airflow providers links` imports the link and lists it."""
    shown = parsed(cli("links", "--output", "json"))
    assert {"extra_link_class_name": "airflow_provider_comet.links.prediction.ModelLink"} in shown


def test_airflow_shows_the_form(cli: Any) -> None:
    """Airflow reads the labels and all fields of the connection form from the metadata."""
    assert {"field_behaviours": "cometapi"} in parsed(cli("behaviours", "--output", "json"))
    fields = {
        field["connection_parameter_name"]: field["field_type"]
        for field in parsed(cli("widgets", "--output", "json"))
        if field["package_name"] == DISTRIBUTION
    }
    assert fields == {
        "extra__cometapi__connect_timeout": ["number", "null"],
        "extra__cometapi__read_timeout": ["number", "null"],
        "extra__cometapi__max_polls_per_second": ["number", "null"],
        "extra__cometapi__output_hosts": ["string", "null"],
        "extra__cometapi__allow_insecure_http": ["boolean", "null"],
    }
