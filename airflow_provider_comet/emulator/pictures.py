"""Draw the pictures for the delivery URLs: the prompt on a ground whose colours follow from the seed."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import textwrap
from typing import Any

LONG_SIDE = 768
FORMATS = {"webp": "WEBP", "png": "PNG", "jpg": "JPEG"}
CONTENT_TYPES = {"webp": "image/webp", "png": "image/png", "jpg": "image/jpeg"}
MISSING = "The emulator draws its pictures with Pillow: pip install 'airflow-provider-comet[emulator]'"


def require_pillow() -> None:
    """Raise an error that says what to install if Pillow is missing.

    The emulator checks this when it starts, not at the first download.
    """
    if importlib.util.find_spec("PIL") is None:
        raise RuntimeError(MISSING)


def size(aspect_ratio: object) -> tuple[int, int]:
    """Return width and height for a ratio such as "16:9"; a square for anything else, such as "match_input_image"."""
    match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", aspect_ratio) if isinstance(aspect_ratio, str) else None
    width, height = (int(match[1]), int(match[2])) if match else (1, 1)
    if not width or not height or not 0.1 <= width / height <= 10:
        width = height = 1
    longest = max(width, height)
    return round(LONG_SIDE * width / longest), round(LONG_SIDE * height / longest)


def draw(prompt: str, seed: str, aspect_ratio: object, extension: str) -> bytes:
    """Return the bytes of a picture file; equal arguments give equal bytes."""
    require_pillow()
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    width, height = size(aspect_ratio)
    digest = hashlib.sha256(seed.encode()).digest()
    dark = (digest[0] // 3, digest[1] // 3, digest[2] // 3)
    bright = (110 + digest[3] // 2, 110 + digest[4] // 2, 110 + digest[5] // 2)
    ramp = Image.linear_gradient("L").rotate((0, 90, 180, 270)[digest[6] % 4]).resize((width, height))
    picture = ImageOps.colorize(ramp, dark, bright)

    pen = ImageDraw.Draw(picture, "RGBA")
    for n in range(4):
        x, y = digest[8 + n] * width // 255, digest[12 + n] * height // 255
        radius = 40 + digest[16 + n]
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=(*bright, 60))

    points = max(18, min(width, height) // 16)
    font = ImageFont.load_default(points)
    lines = textwrap.wrap(prompt, max(8, int(width * 0.84 / (points * 0.55))))
    shown = lines[: max(1, int(height * 0.8 / (points * 1.4)))]
    text = "\n".join(shown) + ("…" if len(shown) < len(lines) else "")
    layout: dict[str, Any] = {
        "xy": (width / 2, height / 2),
        "text": text,
        "font": font,
        "anchor": "mm",
        "align": "center",
        "spacing": points // 3,
    }
    left, top, right, bottom = pen.multiline_textbbox(**layout)
    pen.rectangle((left - points, top - points, right + points, bottom + points), fill=(0, 0, 0, 130))
    pen.multiline_text(**layout, fill=(255, 255, 255, 255))

    file = io.BytesIO()
    picture.save(file, FORMATS[extension])
    return file.getvalue()
