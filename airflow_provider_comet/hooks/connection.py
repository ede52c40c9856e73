"""Read the settings of a client from an Airflow connection or the environment, on a worker and in a triggerer."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook, mask_secret

from airflow_provider_comet.api.base_url import DEFAULT_BASE_URL, clean_base_url
from airflow_provider_comet.api.config import EXTRAS, Config
from airflow_provider_comet.api.errors import ConfigurationError, ConnectionLookupError
from airflow_provider_comet.polling import clock
from airflow_provider_comet.provider_info import CONNECTION_TYPE

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Connection

log = logging.getLogger(__name__)

DEFAULT_CONN_ID = "cometapi_default"
LOOKUP_SECONDS = 30.0
"""A triggerer waits this long for Airflow to return a connection."""
MISSING_PAUSES = (0.5, 1.5)
"""Seconds between the look-ups before a missing connection is believed to be missing. Airflow calls each connection
missing while its database is away, and a moment later it may be back. Longer pauses would delay each task of those who
have ``COMETAPI_KEY`` and no connection."""

_found: dict[str, bool] = {}
"""What this process knows of a connection. ``True``: it exists, so ``COMETAPI_KEY``, which may belong to another
account, never takes its place. ``False``: it is missing, so that the next look-up needs no pauses."""


def get_config(conn_id: str) -> Config:
    """Return the checked settings of a connection.

    :raises ConnectionLookupError: Airflow can't return it now, or calls a connection missing that was there before.
    :raises ConfigurationError: the connection is missing, of another type, or can't be used.
    """
    for pause in (*_missing_pauses(conn_id), None):
        try:
            connection = BaseHook.get_connection(conn_id)
        except AirflowNotFoundException:
            if pause is not None:
                clock.sleep(pause)
        except Exception as error:  # such as a secrets backend that denies access
            raise _lookup_error(conn_id, error) from error
        else:
            config = _config_from_connection(conn_id, connection)
            if config.api_key != connection.password:  # Airflow masks the password as it is stored
                mask_secret(config.api_key)
            return config
    config = _config_from_environment(conn_id, ConfigurationError)
    mask_secret(config.api_key)
    return config


async def aget_config(conn_id: str) -> Config:
    """Return the checked settings of a connection, without blocking the event loop of a triggerer.

    :raises ConnectionLookupError: the connection is missing, or Airflow can't return it now.
    :raises ConfigurationError: the connection is of another type, or can't be used.
    """
    # Where the environment can't take its place, the caller reads it again for minutes.
    may_replace = bool(_environment_key(conn_id)) and not was_read(conn_id)
    for pause in (*(_missing_pauses(conn_id) if may_replace else ()), None):
        try:
            connection = await _aget_connection(conn_id)
        except AirflowNotFoundException:
            if pause is not None:
                await clock.async_sleep(pause)
        else:
            config = _config_from_connection(conn_id, connection)
            if config.api_key != connection.password:
                await _amask_secret(config.api_key)
            return config
    config = _config_from_environment(conn_id, ConnectionLookupError)
    await _amask_secret(config.api_key)
    return config


def was_read(conn_id: str) -> bool:
    """Return whether this process has read the connection, or knows that an earlier attempt has."""
    return _found.get(conn_id) is True


def remember_read(conn_id: str) -> None:
    """Note that an earlier attempt of the task has read the connection: ``COMETAPI_KEY`` never takes its place then."""
    _found[conn_id] = True


async def _aget_connection(conn_id: str) -> Connection:
    from airflow.providers.common.compat.connection import get_async_connection

    try:
        async with asyncio.timeout(LOOKUP_SECONDS):
            return await get_async_connection(conn_id)
    except AirflowNotFoundException:
        raise
    except TimeoutError:
        raise ConnectionLookupError(f"connection {conn_id!r}: Airflow gave no answer in {LOOKUP_SECONDS:g} s") from None
    except Exception as error:  # a secrets backend may raise anything, which must not end waits with older settings
        raise _lookup_error(conn_id, error) from error


def _lookup_error(conn_id: str, error: Exception) -> ConnectionLookupError:
    return ConnectionLookupError(f"connection {conn_id!r}: {type(error).__name__}: {error}")


async def _amask_secret(secret: str) -> None:
    try:
        from airflow.sdk.log import amask_secret
    except ImportError:  # Airflow < 3.3: only the blocking call exists, and it may not run on the event loop
        await asyncio.to_thread(mask_secret, secret)
    else:
        await amask_secret(secret)


def _missing_pauses(conn_id: str) -> tuple[float, ...]:
    return () if _found.get(conn_id) is False else MISSING_PAUSES


def _config_from_connection(conn_id: str, connection: Connection) -> Config:
    """Return the settings that a connection holds. Each of its fields is used or refused, and none is ignored."""
    remember_read(conn_id)
    if connection.conn_type != CONNECTION_TYPE["connection-type"]:
        raise ConfigurationError(
            f"connection {conn_id!r} is of type {connection.conn_type!r}, not {CONNECTION_TYPE['connection-type']!r}"
        )
    try:
        if connection.login:
            raise ConfigurationError("it has a login, which is not used; the API key belongs in the password field")
        extras = _read_extras(connection.extra)
        host = connection.host or DEFAULT_BASE_URL.removeprefix("https://")
        # http is judged by Config, which knows what the extras allow.
        url = clean_base_url(host, connection.port, connection.schema, allow_insecure_http=True)
        config = Config(api_key=connection.password or "", base_url=url, **extras)
    except ConfigurationError as error:
        raise ConfigurationError(f"connection {conn_id!r}: {error.detail}") from None
    if config.is_insecure:
        _warn_once("Connection %r: the API key travels in the clear to %s, over http", conn_id, config.base_url)
    return config


def _read_extras(text: object) -> dict[str, Any]:
    """Return the extras that are set.

    Airflow's own reader is not used: it takes what is no JSON for an empty extra.
    """
    try:
        extra = json.loads(text) if isinstance(text, str) and text.strip() else text or {}
    except ValueError:
        raise ConfigurationError("its extra is no JSON") from None
    if not isinstance(extra, Mapping):
        raise ConfigurationError(f"its extra must be a JSON object, not a {type(extra).__name__}")
    if unknown := [name for name in extra if name not in EXTRAS]:
        raise ConfigurationError(f"its extra {unknown[0]!r:.60} is not known; known are {', '.join(EXTRAS)}")
    return {name: value for name, value in extra.items() if value not in (None, "")}


def _environment_key(conn_id: str) -> str:
    return os.environ.get("COMETAPI_KEY", "").strip() if conn_id == DEFAULT_CONN_ID else ""


def _config_from_environment(conn_id: str, error_class: type[ConfigurationError]) -> Config:
    """Return settings with key and URL from the environment: a key must never go to the host of another source.

    :param error_class: raised if the environment has no key.
    :raises ConnectionLookupError: the connection was there before.
    :raises ConfigurationError: the connection is there, and Airflow can't parse it.
    """
    if os.environ.get(variable := f"AIRFLOW_CONN_{conn_id.upper()}"):
        raise ConfigurationError(f"{variable} is set, but Airflow can't read it: it must be a URI, or JSON")
    if was_read(conn_id):
        raise ConnectionLookupError(
            f"connection {conn_id!r} was there before and is missing now, or Airflow can't read it now; COMETAPI_KEY, "
            "which may belong to another account, does not take its place"
        )
    _found[conn_id] = False
    key = _environment_key(conn_id)
    if not key:
        raise error_class(
            f"connection {conn_id!r} does not exist, or Airflow can't read it now. To create it: airflow connections "
            f"add {conn_id} --conn-type cometapi --conn-password <API key>"
            + (" (or set COMETAPI_KEY)" if conn_id == DEFAULT_CONN_ID else "")
        )
    url = os.environ.get("COMETAPI_BASE_URL", "").strip() or DEFAULT_BASE_URL
    try:
        config = Config(api_key=key, base_url=url, is_from_environment=True)
    except ConfigurationError as error:
        raise ConfigurationError(f"COMETAPI_KEY or COMETAPI_BASE_URL: {error.detail}") from None
    _warn_once(
        "Connection %r does not exist, or Airflow can't read it now: using COMETAPI_KEY and COMETAPI_BASE_URL of the "
        "environment instead. The account of COMETAPI_KEY pays, at %s",
        conn_id,
        config.base_url,
    )
    return config


@functools.cache
def _warn_once(message: str, *args: str) -> None:
    log.warning(message, *args)
