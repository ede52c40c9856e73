"""``StoreProgress``: which predictions of a list are stored, small enough to go through Airflow's database. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

READ_AT_ONCE = 16
"""Predictions that are read before they are stored: the output of each may have megabytes, as a data URI."""


def parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the ids in parts that are small enough to be read before they are stored."""
    for start in range(0, len(ids), READ_AT_ONCE):
        yield ids[start : start + READ_AT_ONCE]


class StoreProgress:
    """What a task that stores a list of predictions knows when it leaves the worker and resumes elsewhere.

    :param ids: each prediction once, in the task's order.
    :ivar stored: ids of those that are stored.
    :ivar failed: ids of those that have ended and could not be stored. The end of the task tries them once more.
    """

    def __init__(self, ids: Sequence[str], stored: Iterable[str] = (), failed: Iterable[str] = ()) -> None:
        self.ids = ids
        self.stored = {*stored}
        self.failed = {*failed}

    @property
    def missing(self) -> list[str]:
        """The predictions that have not ended, as far as the task knows."""
        return [key for key in self.ids if key not in self.stored and key not in self.failed]

    def to_kwargs(self) -> dict[str, str]:
        """Return it as two bitmaps over the list, as hexadecimal numbers, with a digest of the list."""
        return {"list": self._digest(), "stored": self._bitmap(self.stored), "failed": self._bitmap(self.failed)}

    @classmethod
    def read(cls, ids: Sequence[str], kwargs: Mapping[str, Any] | None) -> Self | None:
        """Read what ``to_kwargs`` has returned; ``None``: it is about another list, or can't be read."""
        known, progress = kwargs or {}, cls(ids)
        if known.get("list") != progress._digest():
            return None
        try:
            bitmaps = {name: int(known[name], 16) for name in ("stored", "failed")}
        except (KeyError, TypeError, ValueError):
            return None
        return cls(ids, **{name: _chosen(ids, bitmap) for name, bitmap in bitmaps.items()})

    def _digest(self) -> str:
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()[:16]

    def _bitmap(self, chosen: set[str]) -> str:
        return f"{sum(1 << index for index, key in enumerate(self.ids) if key in chosen):x}"


def _chosen(ids: Sequence[str], bitmap: int) -> list[str]:
    return [key for index, key in enumerate(ids) if bitmap >> index & 1]
