"""``api/files.py``: which texts of an output are files, by its shape and by how they are written."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.api.files import MAX_NAME_CHARACTERS, OutputFile, find_files

PICTURE = "https://files.example/a.png"
BLANK = "https://files.example/my picture.png"
PAGE = "https://files.example/page"
HTML = "https://files.example/index.html"
DELIVERED = "https://replicate.delivery/xezq/abc"
BELOW = "https://pbxt.replicate.delivery/abc/out"
DATA = "data:image/png;base64,iVBORw0KGgo="


def maybe(link: str, name: str | None = None) -> OutputFile:
    return OutputFile(link, name, is_certain=False)


@pytest.mark.parametrize(
    ("output", "files", "links_in_text"),
    [
        (None, [], 0),
        (7, [], 0),
        ("a poem", [], 0),
        (PICTURE, [OutputFile(PICTURE)], 0),
        (BLANK, [OutputFile(BLANK)], 0),
        (DATA, [OutputFile(DATA)], 0),
        (DELIVERED, [OutputFile(DELIVERED)], 0),
        (BELOW, [OutputFile(BELOW)], 0),
        ("https://xreplicate.delivery/abc", [maybe("https://xreplicate.delivery/abc")], 0),
        (PAGE, [maybe(PAGE)], 0),
        (f"\n{PICTURE} \r\n", [OutputFile(PICTURE)], 0),
        ([f"{PAGE}\n"], [maybe(PAGE)], 0),
        (f"{PICTURE}\n{PICTURE}", [], 0),
        (HTML, [maybe(HTML)], 0),
        ([PAGE], [maybe(PAGE)], 0),
        ([PAGE, HTML], [OutputFile(PAGE), OutputFile(HTML)], 0),
        ([PAGE, None], [maybe(PAGE)], 0),
        ([PAGE, None, PAGE], [OutputFile(PAGE)] * 2, 0),
        ([PICTURE, BLANK, DATA], [OutputFile(PICTURE), OutputFile(BLANK), OutputFile(DATA)], 0),
        (["See ", PAGE, " for more"], [], 1),
        (["![](", PICTURE, ") and ", HTML], [], 2),
        ([DELIVERED, " is ", PICTURE, DATA], [OutputFile(DELIVERED), OutputFile(DATA)], 1),
        (["say ", "data:x,y"], [], 1),
        ({"vocals": PICTURE, "page": PAGE}, [OutputFile(PICTURE, "vocals"), maybe(PAGE, "page")], 0),
        ({"a": {"b": [PAGE, PAGE]}}, [OutputFile(PAGE, "a.b")] * 2, 0),
        ({"text": ["See ", PAGE], "image": PICTURE}, [OutputFile(PICTURE, "image")], 1),
        ([{"url": PICTURE}, {"url": PICTURE}], [OutputFile(PICTURE, "url")] * 2, 0),
    ],
    ids=repr,
)
def test_the_rule(output: Any, files: list[OutputFile], links_in_text: int) -> None:
    """Links among texts are text; a lone link is a file only if it looks like a file, and a doubt otherwise."""
    assert find_files(output) == (files, links_in_text)


def test_long_names() -> None:
    """The server decides how long keys are, and how deeply they are nested; what is kept of them is short."""
    output: Any = PICTURE
    for _ in range(2000):
        output = {"k" * 1000: output}
    ((link, name, _),) = find_files(output).files
    assert (link, len(name or "")) == (PICTURE, MAX_NAME_CHARACTERS)
