"""Put a prompt's or a server's words into Markdown, where they must not become markup. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from airflow_provider_comet.api.redaction import printable

_IN_URLS = ":/?#[]@!$&'*+,;=%~"
"""What stays as it is in a link, besides letters and digits: all that URLs are made of, without brackets."""


def code(text: object) -> str:
    """Return a text as it is between backticks: there, Markdown finds no links, pictures or headings.

    A backslash before each character would not do: many renderers make a link of everything that looks like a URL.
    """
    line = printable(" ".join(str(text).split()))
    if not line:
        return ""
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    margin = " " if "`" in (line[0], line[-1]) else ""
    return f"{fence}{margin}{line}{margin}{fence}"


def picture(link: str) -> str:
    """Return a picture by its link; what is no link of a web server is shown as the text that it is."""
    if not link.lower().startswith(("https://", "http://")):
        return code(link)
    return f"![]({quote(link, safe=_IN_URLS, errors='replace').replace('&', '&amp;')})"
