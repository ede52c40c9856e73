"""``outputs/markdown.py``: words of strangers in Markdown, read by a real Markdown parser."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt  # Airflow needs it, through rich
from markdown_it.token import Token

from airflow_provider_comet.outputs.markdown import code, picture

EVIL = "](https://evil.example) [**click here**](https://evil.example"
HOSTILE = st.one_of(
    st.text(max_size=40),
    st.text("`\\[]()<>!*_#&;|~ \n\r\tx", max_size=40),
    st.sampled_from([EVIL, f"a){EVIL}", "&quot;&lt;", "# x\n\n- y", "<img src=x>", "x`](https://evil.example)`", "\\"]),
)


def tokens(text: str) -> Iterator[Token]:
    """What a Markdown text is made of, without paragraphs and headings themselves."""
    for token in MarkdownIt("commonmark").parse(text):
        yield from token.children or ([token] if token.type not in BLOCKS else [])


BLOCKS = {"paragraph_open", "paragraph_close", "heading_open", "heading_close", "inline"}


@given(HOSTILE, st.sampled_from(["", "## ", "a "]))
def test_words_are_shown_and_are_no_markup(words: str, before: str) -> None:
    """Whatever a prompt says, it is one span of code with the same words; beside it is nothing."""
    made = [token for token in tokens(before + code(words)) if token.type != "text"]
    assert [token.type for token in made] == (["code_inline"] if words.split() else [])
    for token in made:
        assert all(character.isprintable() or character.isspace() for character in token.content if character.isascii())
        if words.isprintable():
            assert token.content == " ".join(words.split())


@given(HOSTILE)
def test_a_link_is_a_picture_and_nothing_else(rest: str) -> None:
    """No character of a link ends it: there is a single picture, of the same address."""
    link = f"https://files.example/a.png?sig={rest}"
    made = [*tokens(picture(link) + " " + picture("https://files.example/b.png"))]
    assert [token.type for token in made] == ["image", "text", "image"]
    assert made[0].content == ""
    assert unquote(str(made[0].attrs["src"])) == unquote(link.encode("utf-8", "replace").decode())


@pytest.mark.parametrize("link", ["javascript:alert(1)", "data:text/html,<b>", "<image/png, 9 bytes>", "", EVIL, "//a"])
def test_what_is_no_link_of_a_web_server_is_no_picture(link: str) -> None:
    """Other addresses, and the mark in the place of a data URI, are shown as words."""
    assert {token.type for token in tokens(picture(link))} <= {"code_inline"}


@pytest.mark.parametrize("link", ["https://h.example/a.png?X-Sig=a%2Fb+c==&x=1&lt;=2", "http://[::1]:80/a~b,c;d@e!$'*"])
def test_an_ordinary_link_stays_as_it_is(link: str) -> None:
    """A signed link works from the sheet as it works elsewhere: nothing is encoded twice."""
    (token,) = tokens(picture(link))
    assert str(token.attrs["src"]).replace("%5B", "[").replace("%5D", "]") == link
