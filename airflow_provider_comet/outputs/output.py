"""Which files a prediction's output consists of, how they are named, and what is removed before it is stored."""

from __future__ import annotations

import base64
import hashlib
import logging
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

from airflow_provider_comet.api.file_errors import OutputRefusedError
from airflow_provider_comet.api.files import OutputFile, find_files
from airflow_provider_comet.api.json_values import leaves, map_strings, strict_json
from airflow_provider_comet.api.media_types import clean_media_type, suffix_of, url_suffix
from airflow_provider_comet.api.output_schema import OutputSchema
from airflow_provider_comet.api.portable import carried_text
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.redaction import whole_characters
from airflow_provider_comet.api.uris import DATA_URI, file_type, is_data_uri, is_url, quote_url
from airflow_provider_comet.outputs.file_types import type_of_data

log = logging.getLogger(__name__)

_URL_ALPHABET = bytes.maketrans(b"-_", b"+/")
MAX_FILES = 1000
"""Files of one prediction. Each may keep a worker busy for minutes, and the server decides how many it names."""
# The lengths are bounded: a text of a megabyte must not keep the regular expression busy. A link ends at the next
# space: a quote may be part of its query, and the signature may follow the quote.
_LINK = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}://)(?:[^/?#\s]{0,2000}@)?([^?#\s]*)(?:[?#]\S*)?")


@dataclass(frozen=True)
class Output:
    """One file of a prediction's output, before it is stored.

    :param index: its number among the prediction's outputs, from 0; part of its name.
    :param media_type: the media type, as far as the output shows it.
    :param url: the link to download it from; ``None``: ``content`` is the whole file.
    :param content: the bytes of an output that came with the prediction (text, JSON, a data URI); of a link its text.
    :param name: the keys of the objects that it stands in; ``None``: none.
    :param is_certain: whether a link leads to a file without doubt. Of another one ``content`` is stored if it leads
        to a web page.
    """

    index: int
    media_type: str
    url: str | None = None
    content: bytes = b""
    name: str | None = None
    is_certain: bool = True


def list_outputs(prediction: Prediction, schema: OutputSchema | None = None) -> list[Output]:
    """Return every file of a prediction's output, in order.

    Files are what ``find_files`` says. A text is one file, and so is a list of texts, the tokens of a language model.
    Anything else (an object with scores beside its images) becomes one JSON file after the others.

    :param schema: of the model's output.
    :raises OutputRefusedError: a data URI can't be decoded, there are too many files, or the output is nested so
        deeply that it can't be written.
    """
    output, found = prediction.output, find_files(prediction.output, schema)
    if len(found.files) > MAX_FILES:
        raise OutputRefusedError(
            f"its output consists of {len(found.files)} files, and at most {MAX_FILES} are stored. "
            "CometReplicateHook.get_prediction returns all links"
        )
    if found.links_in_text:
        log.warning(
            "Prediction %s: %s links stand among texts, so they are stored as text and not fetched",
            prediction.id,
            found.links_in_text,
        )
    files = [_from_link(index, file) for index, file in enumerate(found.files)]
    if output is None or len(files) == sum(1 for _ in leaves(output)):
        return files
    texts = output if isinstance(output, list) else [output]
    if not files and all(isinstance(text, str) for text in texts):
        separator = "\n" if len(texts) > 1 and all(map(is_url, texts)) else ""  # no tokens: the schema calls them text
        return [Output(0, "text/plain", content=utf8(separator.join(texts)))]
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


def without_secrets(value: Any) -> Any:
    """Return the same JSON with data URIs as digests, and with links that lack user name, query and fragment.

    These parts sign a link, and a stored file must not hold a signature. The same holds for links within a text.
    """

    def clean(text: str) -> str:
        return clean_url(quote_url(text) if is_url(text) else DATA_URI.sub(_digest, text))

    return map_strings(value, clean)


def clean_url(text: str) -> str:
    """Return a URL, or a text that holds some, without user names, passwords, queries and fragments."""
    return _LINK.sub(r"\1\2", text)


def _digest(uri: re.Match[str]) -> str:
    return f"<data URI, {len(uri[0])} characters, sha256 {hashlib.sha256(utf8(uri[0])).hexdigest()}>"


def _from_link(index: int, file: OutputFile) -> Output:
    text, name = file.link, file.name and carried_text(without_secrets(file.name))
    if not is_data_uri(text):
        return Output(index, file_type(text), quote_url(text), utf8(text), name, file.is_certain)
    head, _, body = text.partition(",")
    media_type, *options = head[len("data:") :].lower().split(";")
    try:
        content = unquote_to_bytes(utf8(body))
        if "base64" in options:  # also without its padding and in the alphabet of URLs, as browsers and Python write it
            content = content.rstrip(b"=").translate(_URL_ALPHABET)
            content = base64.b64decode(content + b"=" * (-len(content) % 4), validate=True)
            if not content:
                raise ValueError("it is empty")
    except ValueError as error:  # also for characters outside ASCII
        raise OutputRefusedError(f"output {index} is a data URI that can't be read: {error}") from None
    return Output(index, type_of_data(clean_media_type(media_type), content), content=content, name=name)
