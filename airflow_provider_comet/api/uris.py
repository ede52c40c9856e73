"""Which texts of an output are files: URLs and data URIs."""

from __future__ import annotations

import re

from airflow_provider_comet.api.redaction import DATA_URI_START

DATA_URI = re.compile(DATA_URI_START + r"\S*")
_URL = re.compile(r"https?://\S+")


def is_url(text: str) -> bool:
    """Return whether a text is a URL and nothing else."""
    return text.startswith("http") and _URL.fullmatch(text) is not None  # most texts of an output are neither


def is_data_uri(text: str) -> bool:
    """Return whether a text is a data URI and nothing else."""
    return text[:5].lower() == "data:" and DATA_URI.fullmatch(text) is not None
