from __future__ import annotations

import importlib.util
import io

import pytest
from PIL import Image

from airflow_provider_comet.emulator import pictures


@pytest.mark.parametrize(
    ("aspect_ratio", "pixels"),
    [
        ("1:1", (768, 768)),
        ("16:9", (768, 432)),
        ("9:16", (432, 768)),
        ("3:2", (768, 512)),
        ("21:9", (768, 329)),
        ("match_input_image", (768, 768)),
        ("0:1", (768, 768)),
        ("999:1", (768, 768)),
        (None, (768, 768)),
        (2, (768, 768)),
    ],
)
def test_size(aspect_ratio: object, pixels: tuple[int, int]) -> None:
    """A picture has the requested ratio with 768 pixels on its long side, or is a square without a valid ratio."""
    assert pictures.size(aspect_ratio) == pixels


@pytest.mark.parametrize("extension", ["webp", "png", "jpg"])
def test_format_and_size(extension: str) -> None:
    """A file has the format that its extension says."""
    with Image.open(io.BytesIO(pictures.draw("a lighthouse", "1", "16:9", extension))) as picture:
        assert (picture.format, picture.size) == (pictures.FORMATS[extension], (768, 432))


def test_equal_arguments_give_equal_bytes() -> None:
    """Equal arguments give equal files; another seed or prompt gives another file."""
    first = pictures.draw("a lighthouse", "1", None, "png")
    assert pictures.draw("a lighthouse", "1", None, "png") == first
    assert pictures.draw("a lighthouse", "2", None, "png") != first
    assert pictures.draw("a windmill", "1", None, "png") != first


@pytest.mark.parametrize("prompt", ["  ", "word " * 2000, "x" * 5000, "灯台 🏮", "line\nbreak\ttab\0"])
def test_any_prompt_can_be_drawn(prompt: str) -> None:
    """Every prompt can be drawn: blank, very long, without spaces, or in any script."""
    with Image.open(io.BytesIO(pictures.draw(prompt, "1", "9:21", "webp"))) as picture:
        assert picture.size == (329, 768)


def test_missing_pillow_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Pillow the error says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match=r"pip install 'airflow-provider-comet\[emulator\]'"):
        pictures.draw("a lighthouse", "1", None, "png")
