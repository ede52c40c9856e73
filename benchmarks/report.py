"""What a part of the benchmarks hands back, and how it is shown: on the terminal, as JSON, in docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AGREE = 0.25
"""Two runs agree if no ratio differs by more than this share of the smaller one."""


@dataclass
class Target:
    """What a figure has to reach.

    :param figure: its name.
    :param words: what it is, for a reader.
    :param limit: the number to reach.
    :param is_most: whether more than that is a miss; otherwise less is.
    :param unit: follows the numbers.
    """

    figure: str
    words: str
    limit: float
    is_most: bool = True
    unit: str = ""

    def row(self, figures: Mapping[str, float]) -> list[str]:
        """The figure, the limit and the verdict; a miss says by how much."""
        value = figures[self.figure]
        is_met = value <= self.limit if self.is_most else value >= self.limit
        missed = f"MISSED by {abs(value - self.limit) / self.limit:.0%}" if self.limit else "MISSED"
        wanted = f"at {'most' if self.is_most else 'least'} {self.limit:g}{self.unit}"
        return [self.words, f"{number(value)}{self.unit}", wanted, "ok" if is_met else missed]


@dataclass
class Table:
    """Rows of text under a header."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """As docs/benchmarks.md shows it."""
        lines = [self.header, ["---"] + ["---:"] * (len(self.header) - 1), *self.rows]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def text(self) -> str:
        """As a terminal shows it."""
        widths = [max(len(line[i]) for line in [self.header, *self.rows]) for i in range(len(self.header))]
        return "\n".join(
            "  ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(_zip(line, widths))
            )
            for line in [self.header, ["-" * width for width in widths], *self.rows]
        )


@dataclass
class Part:
    """The results of one part.

    :param tables: for readers.
    :param figures: every number by name.
    :param ratios: the names of those that two runs have to agree on; the others depend on the machine's mood.
    :param targets: what is wanted of them.
    :param notes: how it was measured; sentences.
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
        """The whole part for a terminal."""
        return "\n\n".join([f"== {self.title}", *self.notes, *(table.text() for table in self._all_tables())]) + "\n"

    def markdown(self) -> str:
        """The whole part for docs/benchmarks.md."""
        return "\n\n".join([f"## {self.title}", *self.notes, *(table.markdown() for table in self._all_tables())])

    def to_json(self) -> dict[str, Any]:
        """Figures and verdicts; which of them are ratios is needed to compare two runs."""
        verdicts = {target.figure: target.row(self.figures)[-1] for target in self.targets}
        return {"title": self.title, "figures": self.figures, "ratios": self.ratios, "verdicts": verdicts}


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> Table:
    """Each ratio that both runs have, and whether they agree.

    :param before: a run's parts by name, as ``Part.to_json`` gives them.
    """
    rows = []
    for name, part in after.items():
        old = before.get(name, {}).get("figures", {})
        for ratio in part["ratios"]:
            if ratio in old:
                one, other = old[ratio], part["figures"][ratio]
                apart = max(one, other) / min(one, other) - 1 if min(one, other) > 0 else float(one != other)
                verdict = "ok" if apart <= AGREE else "DISAGREE"
                rows.append([f"{name}: {ratio}", number(one), number(other), f"{apart:.0%}", verdict])
    return Table(["ratio", "before", "now", "apart", ""], rows)


def write_markdown(path: Path, blocks: Mapping[str, str]) -> None:
    """Replace what stands between ``<!-- bench: NAME -->`` and ``<!-- end -->``; what people wrote around it stays.

    A block that is not there yet is put at the end.
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
    """Three significant digits, and no more zeros than needed."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _zip(line: Iterable[str], widths: Iterable[int]) -> Iterable[tuple[str, int]]:
    return zip(line, widths, strict=True)
