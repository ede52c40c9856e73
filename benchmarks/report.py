"""The results of a part of the benchmarks, as text for the terminal, as JSON and for docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGREE = 0.25
"""Two runs agree if no ratio differs by more than this share of the smaller ratio."""


@dataclass
class Target:
    """A limit for a figure.

    :param figure: the name of the figure.
    :param words: its description for a reader.
    :param limit: the number to reach.
    :param is_most: whether the limit is a maximum; otherwise it is a minimum.
    :param unit: follows the numbers.
    """

    figure: str
    words: str
    limit: float
    is_most: bool = True
    unit: str = ""

    def row(self, figures: Mapping[str, float]) -> list[str]:
        """Return description, figure, limit and verdict; a missed target says by how much."""
        value = figures[self.figure]
        is_met = value <= self.limit if self.is_most else value >= self.limit
        missed = f"MISSED by {abs(value - self.limit) / self.limit:.0%}" if self.limit else "MISSED"
        wanted = f"at {'most' if self.is_most else 'least'} {self.limit:g}{self.unit}"
        return [self.words, f"{number(value)}{self.unit}", wanted, "ok" if is_met else missed]


@dataclass
class Table:
    """A table of texts with a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Return the table for docs/benchmarks.md."""
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def text(self) -> str:
        """Return the table for a terminal."""
        widths = [max(len(line[i]) for line in [self.header, *self.rows]) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(_zip(line, widths))
            )
            for line in [self.header, ["-" * width for width in widths], *self.rows]
        )


@dataclass
class Part:
    """The results of a part.

    :param tables: the figures for readers.
    :param figures: every figure by name.
    :param ratios: the names of the figures on which two runs have to agree; the others depend on the machine.
    :param targets: the limits for figures.
    :param notes: sentences about how it was measured.
    """

    title: str
    tables: list[Table]
    figures: dict[str, float]
    ratios: list[str] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def _all_tables(self) -> list[Table]:
        verdicts = [target.row(self.figures) for target in self.targets]
        return [*self.tables, *([Table(["target", "measured", "wanted", ""], verdicts)] if verdicts else [])]

    def text(self) -> str:
        """Return the whole part for a terminal."""
        return "\n\n".join([f"== {self.title}", *self.notes, *(table.text() for table in self._all_tables())]) + "\n"

    def markdown(self) -> str:
        """Return the whole part for docs/benchmarks.md."""
        return "\n\n".join([f"## {self.title}", *self.notes, *(table.markdown() for table in self._all_tables())])

    def to_json(self) -> dict[str, Any]:
        """Return figures, verdicts and the names of the ratios, by which two runs are compared."""
        verdicts = {target.figure: target.row(self.figures)[-1] for target in self.targets}
        return {"title": self.title, "figures": self.figures, "ratios": self.ratios, "verdicts": verdicts}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """Compare the ratios that both runs have.

    :param before: the parts of the earlier run by name, as ``Part.to_json`` returns them.
    :param after: the parts of the later run.
    """
    rows = []
    for name, part in after.items():
        old = before.get(name, {}).get("figures", {})
        for ratio in part["ratios"]:
            if ratio in old:
                then, now = old[ratio], part["figures"][ratio]
                apart = max(then, now) / min(then, now) - 1 if min(then, now) > 0 else float(then != now)
                verdict = "ok" if apart <= AGREE else "DISAGREE"
                rows.append([f"{name}: {ratio}", number(then), number(now), f"{apart:.0%}", verdict])
    return Table(["ratio", "before", "now", "apart", ""], rows)


def write_markdown(path: Path, blocks: Mapping[str, str]) -> None:
    """Replace the text between ``<!-- bench: NAME -->`` and ``<!-- end -->``, and nothing else.

    A new block is appended at the end.
    """
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    for name, block in blocks.items():
        marked = f"<!-- bench: {name} -->\n{block}\n<!-- end -->"
        pattern = re.compile(rf"<!-- bench: {re.escape(name)} -->\n.*?<!-- end -->", re.DOTALL)
        if pattern.search(text):
            text = pattern.sub(marked.replace("\\", r"\\"), text)
        else:
            text = f"{text.rstrip()}\n\n{marked}\n"
    path.write_text(text, encoding="utf-8")


def number(value: float) -> str:
    """Return a number with three significant digits and without trailing zeros."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _zip(line: Iterable[str], widths: Iterable[int]) -> Iterable[tuple[str, int]]:
    return zip(line, widths, strict=True)
