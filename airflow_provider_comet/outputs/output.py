"""What a prediction has made, as files: which there are, what they hold, and how they are named."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.api.media_types import ANY, media_type_of, suffix_of, url_suffix
from airflow_provider_comet.api.prediction import DATA_URI, Prediction, is_data_uri, is_url
from airflow_provider_comet.api.redaction import whole_characters

_FILMS = frozenset({"application/mp4", "application/ogg", "application/vnd.apple.mpegurl", "application/x-mpegurl"})
_XML = frozenset({"application/xml", "text/xml"})
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_KINDS = {"image": "picture", "video": "film or sound", "audio": "film or sound"}
# Lengths are bounded: a text of a megabyte must not keep a regular expression busy.
# Up to the next space: a quote may be part of a query, and what signs the link may follow it.
_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)(?:[^/?#\s]{0,2000}@)?([^?#\s]*)(?:[?#]\S*)?")


@dataclass(frozen=True)
class Output:
    """One file to be.

    :param index: its number among the prediction's outputs, from 0; part of its name.
    :param media_type: what it is, as far as known before it is fetched.
    :param url: where it is delivered; ``None``: ``content`` is all of it.
    :param content: of an output that came with the prediction (text, JSON, a data URI).
    """

    index: int
    media_type: str
    url: str | None = None
    content: bytes = b""


def outputs_of(prediction: Prediction) -> list[Output]:
    """Every output of a prediction.

    Each URL and data URI is a file. Text is one, and so is a list of text: the tokens of a language model. Anything
    else that is no file (an object with scores beside its pictures) is kept as one JSON file, after the others.

    :raises OutputRefusedError: a data URI can't be read.
    """
    found = [_from_link(index, text) for index, text in enumerate(prediction.files)]
    output = prediction.output
    if output is None or _holds_only_files(output):
        return found
    texts = output if isinstance(output, list) else [output]
    if not found and all(isinstance(text, str) for text in texts):
        return [Output(0, "text/plain", content=utf8("".join(texts)))]
    rest = json.dumps(for_keeping(output), ensure_ascii=False, indent=1)
    return [*found, Output(len(found), "application/json", content=utf8(rest))]


def utf8(text: str) -> bytes:
    """A text in UTF-8, also one with halves of characters."""
    return whole_characters(text).encode()


def file_name(prediction_id: str, output: Output, media_type: str) -> str:
    """``<prediction id>-<index>.<extension>``. Ids are those that ``check_prediction_id`` lets pass: no name leads out
    of its folder.

    :param media_type: what the server said it is.
    """
    return f"{prediction_id}-{output.index}{suffix_of(media_type) or url_suffix(output.url) or '.bin'}"


def check_media_type(promised: str, given: str | None) -> str:
    """Return what a file is, by what its link promised and what the server says.

    Another kind of picture is a picture. A page or an error document in its place comes from something on the way,
    which may be gone when a retry asks again; a film in its place does not.

    :raises DeliveryError: a document came instead.
    :raises OutputRefusedError: it is not what was promised.
    """
    media_type = (given or "").partition(";")[0].strip().lower()
    if media_type in {"", ANY, "binary/octet-stream"}:
        return promised
    if promised == "image/svg+xml" and media_type in _XML:
        return promised
    is_known = promised != ANY
    if (media_type in _PAGES and promised not in _PAGES) or (is_known and _kind(promised) != _kind(media_type)):
        refusal = DeliveryError if _kind(media_type) == "document" else OutputRefusedError
        what = promised if is_known else "a file"
        raise refusal(f"the link promises {what}, and the server sends {media_type}")
    return media_type


def for_keeping(value: Any) -> Any:
    """The same JSON with each data URI replaced by its digest, and its URLs without user name and query: these sign
    links, and links are not for keeping. The same holds amid a text.
    """
    if isinstance(value, str):
        return clean_url(DATA_URI.sub(_digest, value))
    if isinstance(value, dict):
        return {for_keeping(key): for_keeping(item) for key, item in value.items()}
    return [for_keeping(item) for item in value] if isinstance(value, list) else value


def clean_url(text: str) -> str:
    """A URL, or a text with some in it, without user names, passwords, queries and fragments."""
    return _LINK.sub(r"\1\2", text)


def _digest(uri: re.Match[str]) -> str:
    return f"<data URI, {len(uri[0])} characters, sha256 {hashlib.sha256(utf8(uri[0])).hexdigest()}>"


def _from_link(index: int, text: str) -> Output:
    if is_url(text):
        return Output(index, media_type_of(url_suffix(text)), url=text)
    head, _, body = text.partition(",")
    media_type, *options = head[len("data:") :].lower().split(";")
    try:
        content = base64.b64decode(body, validate=True) if "base64" in options else unquote_to_bytes(utf8(body))
    except ValueError as error:  # also for what is no ASCII
        raise OutputRefusedError(f"output {index} is a data URI that can't be read: {error}") from None
    return Output(index, media_type.strip() or "text/plain", content=content)


def _holds_only_files(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return all(_holds_only_files(item) for item in (value.values() if isinstance(value, dict) else value))
    return isinstance(value, str) and (is_url(value) or is_data_uri(value))


def _kind(media_type: str) -> str:
    return _KINDS["video"] if media_type in _FILMS else _KINDS.get(media_type.partition("/")[0], "document")
