"""``find_files``: the one rule for which texts of an output are files. docs/outputs.md has it as a table."""

from __future__ import annotations

from typing import Any, NamedTuple

from airflow_provider_comet.api.media_types import ANY, WEB_PAGES
from airflow_provider_comet.api.output_schema import OutputSchema
from airflow_provider_comet.api.uris import file_type, has_url_form, is_data_uri, is_delivery, is_url

MAX_NAME_CHARACTERS = 200
"""What is kept of a file's name: the server decides how long keys are, and how deeply they are nested."""


class OutputFile(NamedTuple):
    """One file that an output names, or holds as a data URI.

    :param link: the URL or the data URI, without blanks around it.
    :param name: the keys of the objects that it stands in, joined by dots (``stems.vocals``); ``None``: none.
    :param is_certain: whether it is a file without doubt. Otherwise it may be the words of a language model.
    """

    link: str
    name: str | None = None
    is_certain: bool = True


class OutputFiles(NamedTuple):
    """What ``find_files`` returns.

    :param files: in the order of the output.
    :param links_in_text: how many links are no files, because they stand among texts.
    """

    files: list[OutputFile]
    links_in_text: int = 0


def find_files(output: Any, schema: OutputSchema | None = None) -> OutputFiles:
    """Return the files of an output.

    The schema decides where it says what a text is. Elsewhere a list of texts that are not all links holds the tokens
    of a language model, so its links are text; all other links are files. A link that stands alone, or as the value of
    an object's key, may be text nevertheless, unless it looks like a file: what its server sends decides.

    :param output: as the API describes it, of any shape.
    :param schema: of the model's output.
    """
    files: list[OutputFile] = []
    links_in_text = 0
    # What is left: a value, its schema, its name, and whether it is an item of a list with several links.
    pending: list[tuple[Any, OutputSchema | None, str | None, bool]] = [(output, schema, None, False)]
    while pending:
        value, known, name, is_among_links = pending.pop()
        if isinstance(value, dict):
            pending.extend((value[key], known and known.value(key), _join(name, key), False) for key in reversed(value))
        elif isinstance(value, list):
            links = [link for item in value if isinstance(item, str) and (link := _find_link(item))]
            items = known.items if known else None
            is_silent = items is None or items.is_file is None
            if is_silent and len(value) > 1 and all(isinstance(item, str) for item in value):
                found = links if len(links) == len(value) else [link for link in links if _is_delivered(link)]
                files += [OutputFile(link, name) for link in found]
                links_in_text += len(links) - len(found)
            else:
                pending.extend((item, items, name, len(links) > 1) for item in reversed(value))
        elif isinstance(value, str) and known and known.is_file is not None:
            link = value.strip()
            if has_url_form(link) or is_data_uri(link) if known.is_file else _is_delivered(link):
                files.append(OutputFile(link, name))
        elif isinstance(value, str) and (link := _find_link(value)):
            files.append(OutputFile(link, name, is_among_links or _looks_like_a_file(link)))
    return OutputFiles(files, links_in_text)


def _join(name: str | None, key: str) -> str:
    return (key if name is None else f"{name}.{key}")[:MAX_NAME_CHARACTERS]


def _find_link(text: str) -> str:
    """Return the link that a text consists of, without blanks around it; an empty text if it is no link."""
    link = text.strip()
    return link if is_url(link) or is_data_uri(link) else ""


def _is_delivered(link: str) -> bool:
    """Return whether a link is a file also among texts: no language model writes such a link."""
    return (is_url(link) and is_delivery(link)) or (is_data_uri(link) and ";base64," in link[:300])


def _looks_like_a_file(link: str) -> bool:
    return is_data_uri(link) or is_delivery(link) or file_type(link) not in {ANY, *WEB_PAGES}
