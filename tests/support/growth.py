"""How the time of a call grows with the length of a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

NOISE_SECONDS = 0.25
"""What a busy machine may add to any measurement."""
MARGIN = 4


def assert_linear(call: Callable[[str], object], shape: str, *, sizes: Sequence[int], is_bounded: bool = False) -> None:
    """Call with longer and longer repeats of a shape, and fail at the first whose time grew faster than its length.

    :param is_bounded: the last step must add nothing, because only the start of a text is read.
    """
    before: tuple[int, float] | None = None
    for size in sizes:
        text = shape * (size // len(shape))
        took = _time(call, text)
        if before is not None:
            growth = 1 if is_bounded and size == sizes[-1] else size / before[0]
            allowed = before[1] * growth * MARGIN + NOISE_SECONDS
            if took > allowed:
                took = _time(call, text)  # once more: another process may have had the processor
            assert took <= allowed, (
                f"{size} characters of {shape!a} took {took:.3f} s, {before[0]} took {before[1]:.3f}"
            )
        before = size, took


def _time(call: Callable[[str], object], text: str) -> float:
    began = time.process_time()
    call(text)
    return time.process_time() - began
