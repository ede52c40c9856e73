"""Read the settings of a client from an Airflow connection or the environment, on a worker and in a triggerer."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_comet.api.config import DEFAULT_BASE_URL, EXTRAS, Config
from airflow_provider_comet.api.errors import ConfigurationError, ConnectionLookupError
from airflow_provider_comet.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

DEFAULT_CONN_ID = "cometapi_default"
LOOKUP_SECONDS = 30.0
"""A triggerer waits this long for Airflow to return a connection."""


def get_config(conn_id: str) -> Config:
    """Return the checked settings of a connection.

    :raises ConfigurationError: the connection does not exist, is of another type, or can't be used.
    """
    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        config = _config_from_environment(conn_id, ConfigurationError)
        mask_secret(config.api_key)
        return config
    return _config_from_connection(conn_id, connection, connection.extra_dejson)


async def aget_config(conn_id: str) -> Config:
    """Return the checked settings of a connection, without blocking the event loop of a triggerer.

    :raises ConnectionLookupError: the connection does not exist, or Airflow can't return it now.
    :raises ConfigurationError: the connection is of another type, or can't be used.
    """
    from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson

    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            connection = await get_async_connection(conn_id)
            extra = await get_async_extra_dejson(connection)
    except AirflowNotFoundException:  # Airflow raises this also while its secrets backend or API server is down
        config = _config_from_environment(conn_id, ConnectionLookupError)
        await _amask_secret(config.api_key)
        return config
    except TimeoutError:
        raise ConnectionLookupError(f"connection {conn_id!r}: Airflow gave no answer in {LOOKUP_SECONDS:g} s") from None
    except Exception as error:  # a secrets backend may raise anything, which must not end waits with older settings
        raise ConnectionLookupError(f"connection {conn_id!r}: {type(error).__name__}: {error}") from error
    return _config_from_connection(conn_id, connection, extra)


async def _amask_secret(secret: str) -> None:
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:  # Airflow < 3.3: only the blocking call exists, and it may not run on the event loop
        await asyncio.to_thread(mask_secret, secret)
    else:
        await amask_secret(secret)


def _config_from_connection(conn_id: str, connection: Connection, extra: object) -> Config:
    if connection.conn_type != CONNECTION_TYPE["connection-type"]:
        raise ConfigurationError(
            f"connection {conn_id!r} is of type {connection.conn_type!r}, not {CONNECTION_TYPE['connection-type']!r}"
        )
    if not isinstance(extra, Mapping):
        got = type(extra).__name__
        raise ConfigurationError(f"connection {conn_id!r}: its extra must be a JSON object, not a {got}")
    host = connection.host or DEFAULT_BASE_URL
    extras = {name: extra[name] for name in EXTRAS if extra.get(name) not in (None, "")}
    try:
        return Config(
            api_key=connection.password or "",
            base_url=f"{host}:{connection.port}" if connection.port else host,
            **extras,
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"connection {conn_id!r}: {error.detail}") from None


def _config_from_environment(conn_id: str, error_class: type[ConfigurationError]) -> Config:
    """Return settings with key and URL from the environment: a key must never go to the host of another source.

    :param error_class: raised if the environment has no key.
    """
    key = os.environ.get("COMETAPI_KEY", "").strip()
    if conn_id != DEFAULT_CONN_ID or not key:
        raise error_class(
            f"connection {conn_id!r} does not exist; create it: airflow connections add {conn_id} "
            "--conn-type cometapi --conn-password <API key>"
            + (" (or set COMETAPI_KEY)" if conn_id == DEFAULT_CONN_ID else "")
        )
    _log_once("Connection %r does not exist: using COMETAPI_KEY and COMETAPI_BASE_URL instead", conn_id)
    url = os.environ.get("COMETAPI_BASE_URL", "").strip() or DEFAULT_BASE_URL
    return Config(api_key=key, base_url=url, is_from_environment=True)


@functools.cache
def _log_once(message: str, *args: str) -> None:
    log.info(message, *args)
