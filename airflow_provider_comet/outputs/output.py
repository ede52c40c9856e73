"""Which files a prediction's output consists of, how they are named, and what is removed before it is stored."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from airflow_provider_comet.api.file_errors import DeliveryError, OutputRefusedError
from airflow_provider_comet.api.json_values import leaves, map_strings, strict_json
from airflow_provider_comet.api.media_types import ANY, clean_media_type, media_type_of, suffix_of, url_suffix
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.redaction import whole_characters
from airflow_provider_comet.api.uris import DATA_URI, is_data_uri, is_url

_STREAM_TYPES = frozenset({
    "application/mp4",
    "application/ogg",
    "application/vnd.apple.mpegurl",
    "application/x-mpegurl",
})
"""Audio or video, although the name begins with ``application``."""
_XML_TYPES = frozenset({"application/xml", "text/xml"})
_WEB_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml"})
MAX_FILES = 1000
"""Files of one prediction. Each may keep a worker busy for minutes, and the server decides how many it names."""
_KINDS = {"image": "image", "video": "audio or video", "audio": "audio or video"}
# The lengths are bounded: a text of a megabyte must not keep the regular expression busy. A link ends at the next
# space: a quote may be part of its query, and the signature may follow the quote.
_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)(?:[^/?#\s]{0,2000}@)?([^?#\s]*)(?:[?#]\S*)?")


@dataclass(frozen=True)
class Output:
    """One file of a prediction's output, before it is stored.

    :param index: its number among the prediction's outputs, from 0; part of its name.
    :param media_type: the media type, as far as the output shows it.
    :param url: the link to download it from; ``None``: ``content`` is the whole file.
    :param content: the bytes of an output that came with the prediction (text, JSON, a data URI).
    """

    index: int
    media_type: str
    url: str | None = None
    content: bytes = b""


def list_outputs(prediction: Prediction) -> list[Output]:
    """Return every file of a prediction's output, in order.

    Each URL and each data URI is a file. A text is one file, and so is a list of texts, the tokens of a language model.
    Anything else (an object with scores beside its images) becomes one JSON file after the others.

    :raises OutputRefusedError: a data URI can't be decoded, there are too many files, or the output is nested so
        deeply that it can't be written.
    """
    output, links = prediction.output, prediction.files
    if len(links) > MAX_FILES:
        raise OutputRefusedError(
            f"its output consists of {len(links)} files, and at most {MAX_FILES} are stored. "
            "CometReplicateHook.get_prediction returns all links"
        )
    files = [_from_link(index, text) for index, text in enumerate(links)]
    if output is None or all(isinstance(leaf, str) and (is_url(leaf) or is_data_uri(leaf)) for leaf in leaves(output)):
        return files
    texts = output if isinstance(output, list) else [output]
    if not files and all(isinstance(text, str) for text in texts):
        return [Output(0, "text/plain", content=utf8("".join(texts)))]
    return [*files, Output(len(files), "application/json", content=json_bytes(without_secrets(output)))]


def utf8(text: str) -> bytes:
    """Return a text in UTF-8; halves of surrogate pairs become replacement characters."""
    return whole_characters(text).encode()


def json_bytes(value: Any) -> bytes:
    """Return a value as JSON in UTF-8, for a file.

    :raises OutputRefusedError: the value is nested so deeply that Python can't write it.
    """
    try:
        return utf8(strict_json(value))
    except RecursionError:
        raise OutputRefusedError("its JSON is nested too deeply to be written") from None


def file_name(prediction_id: str, output: Output, media_type: str) -> str:
    """Return the name of a stored file: ``<prediction id>-<index>.<extension>``.

    :param prediction_id: as ``check_prediction_id`` returned it, so that no name leads out of its folder.
    :param media_type: what the server announced.
    """
    return f"{prediction_id}-{output.index}{suffix_of(media_type) or url_suffix(output.url) or '.bin'}"


def check_media_type(expected: str, announced: str | None) -> str:
    """Return a file's media type, from its link's suffix and from the server's ``Content-Type``.

    Another type of the same kind is accepted: a PNG is as good as a WebP. A web page or an error document comes from
    something between us and the file, so a retry may get the file. A video in place of an image is final.

    :param expected: by the link's suffix; ``ANY`` if the suffix is unknown.
    :param announced: the ``Content-Type`` header.
    :raises DeliveryError: a document was sent instead.
    :raises OutputRefusedError: a file of another kind was sent.
    """
    media_type = clean_media_type(announced)
    if media_type in {"", ANY, "binary/octet-stream"}:
        return expected
    if expected == "image/svg+xml" and media_type in _XML_TYPES:
        return expected
    is_known = expected != ANY
    is_page = media_type in _WEB_PAGE_TYPES and expected not in _WEB_PAGE_TYPES
    if is_page or (is_known and _kind(expected) != _kind(media_type)):
        error_type = DeliveryError if _kind(media_type) == "document" else OutputRefusedError
        promised = expected if is_known else "a file"
        raise error_type(f"the link promises {promised}, and the server sends {media_type}")
    return media_type


def without_secrets(value: Any) -> Any:
    """Return the same JSON with data URIs as digests, and with links that lack user name, query and fragment.

    These parts sign a link, and a stored file must not hold a signature. The same holds for links within a text.
    """
    return map_strings(value, lambda text: clean_url(DATA_URI.sub(_digest, text)))


def clean_url(text: str) -> str:
    """Return a URL, or a text that holds some, without user names, passwords, queries and fragments."""
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
    except ValueError as error:  # also for characters outside ASCII
        raise OutputRefusedError(f"output {index} is a data URI that can't be read: {error}") from None
    return Output(index, clean_media_type(media_type) or "text/plain", content=content)


def _kind(media_type: str) -> str:
    return _KINDS["video"] if media_type in _STREAM_TYPES else _KINDS.get(media_type.partition("/")[0], "document")
