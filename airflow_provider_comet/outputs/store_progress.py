"""``StoreProgress``: which predictions of a list are stored, small enough to go through Airflow's database. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

_BITMAPS = ("stored", "failed", "delayed", "unchecked")
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
    :ivar failed: ids of those that have ended and can't be stored. The end of the task reads once more why.
    :ivar delayed: ids of those that have ended and could not be stored for now. Each return to a worker tries again.
    :ivar unchecked: ids of those whose manifests could not be read: what is stored of them is not known.
    """

    def __init__(
        self,
        ids: Sequence[str],
        stored: Iterable[str] = (),
        failed: Iterable[str] = (),
        delayed: Iterable[str] = (),
        unchecked: Iterable[str] = (),
    ) -> None:
        self.ids = ids
        self.stored = {*stored}
        self.failed = {*failed}
        self.delayed = {*delayed}
        self.unchecked = {*unchecked}

    @property
    def missing(self) -> list[str]:
        """The predictions that have not ended, as far as the task knows."""
        ended = self.stored | self.failed | self.delayed
        return [key for key in self.ids if key not in ended]

    def note_stored(self, key: str) -> None:
        """Note that a prediction is stored."""
        self.stored.add(key)
        self.failed.discard(key)
        self.delayed.discard(key)

    def note_error(self, key: str, *, is_final: bool) -> None:
        """Note that a prediction has ended and is not stored.

        :param is_final: whether no later try can help.
        """
        self.failed.discard(key)
        self.delayed.discard(key)
        (self.failed if is_final else self.delayed).add(key)

    def to_kwargs(self) -> dict[str, str]:
        """Return it as bitmaps over the list, as hexadecimal numbers, with a digest of the list."""
        return {"list": self._digest(), **{name: self._bitmap(getattr(self, name)) for name in _BITMAPS}}

    @classmethod
    def read(cls, ids: Sequence[str], kwargs: Mapping[str, Any] | None) -> Self | None:
        """Read what ``to_kwargs`` has returned; ``None``: it is about another list, or can't be read."""
        known, progress = kwargs or {}, cls(ids)
        if known.get("list") != progress._digest():
            return None
        try:
            bitmaps = {name: int(known[name], 16) for name in _BITMAPS}
        except (KeyError, TypeError, ValueError):
            return None
        return cls(ids, **{name: _chosen(ids, bitmap) for name, bitmap in bitmaps.items()})

    def _digest(self) -> str:
        return hashlib.sha256("\n".join(self.ids).encode()).hexdigest()[:16]

    def _bitmap(self, chosen: set[str]) -> str:
        return f"{sum(1 << index for index, key in enumerate(self.ids) if key in chosen):x}"


def _chosen(ids: Sequence[str], bitmap: int) -> list[str]:
    return [key for index, key in enumerate(ids) if bitmap >> index & 1]
