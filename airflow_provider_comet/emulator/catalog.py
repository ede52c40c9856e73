"""The models that the emulator offers: the shape of their output and how long they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = Literal["urls", "url", "tokens"]
"""A list of URLs, a single URL, or a text as a list of tokens. A client has to cope with all three."""


@dataclass(frozen=True)
class Model:
    """A model: the shape of its output and the seconds that a prediction takes.

    :param name: `owner/name`.
    :param output: the shape of the output of a prediction that has succeeded.
    :param seconds: from the create to the end of a prediction.
    """

    name: str
    output: Shape
    seconds: float


# Shapes as on the models' public pages: only schnell, dev and the Stability models take num_outputs.
CATALOG: dict[str, Model] = {
    model.name: model
    for model in (
        Model("black-forest-labs/flux-schnell", "urls", 1.5),
        Model("black-forest-labs/flux-dev", "urls", 3.0),
        Model("black-forest-labs/flux-pro", "url", 5.0),
        Model("black-forest-labs/flux-1.1-pro", "url", 4.0),
        Model("black-forest-labs/flux-1.1-pro-ultra", "url", 8.0),
        Model("black-forest-labs/flux-kontext-pro", "url", 5.0),
        Model("black-forest-labs/flux-kontext-max", "url", 6.0),
        Model("black-forest-labs/flux-2-dev", "url", 3.0),
        Model("black-forest-labs/flux-2-flex", "url", 6.0),
        Model("black-forest-labs/flux-2-pro", "url", 6.0),
        Model("black-forest-labs/flux-2-max", "url", 8.0),
        Model("stability-ai/sdxl", "urls", 4.0),
        Model("stability-ai/stable-diffusion-3.5-medium", "urls", 5.0),
        Model("meta/meta-llama-3-8b-instruct", "tokens", 2.0),
    )
}
