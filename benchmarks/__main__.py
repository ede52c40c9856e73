"""``python -m benchmarks [PART ...]``: measure, print and store the figures.

Each run is stored as ``.bench/<time>.json``, and each part is compared with the last run that had it. ``--write`` puts
the tables of the measured parts into docs/benchmarks.md, ``--compare`` only compares two runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.machine import describe
from benchmarks.report import Part, Table, Target, compare, write_markdown

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / ".bench"
DOCUMENT = ROOT / "docs" / "benchmarks.md"


def _simulated() -> Part:
    """Run ``simulate_polling``, which is also a program of its own, and return its figures as a part."""
    simulation: Any = import_module("benchmarks.simulate_polling")
    figures = simulation.run()
    ages = [f"age_{age:g}" for age in simulation.START_AGES]
    rows = [
        [
            f"{mean} s" if mean != "mix" else "all of them",
            *(f"{figures[f'requests_{mean}_{age}']:.1f}" for age in ages),
            f"{max(figures[f'relative_delay_{mean}_{age}'] for age in ages):.1%}",
            *(f"{figures[f'honest_ratio_{mean}_{age}']:.2f}" for age in ages),
        ]
        for mean in [*(f"{mean:g}" for mean in simulation.MEANS), "mix"]
    ]
    header = [
        "polls",
        "polls, waiting from 2 s on",
        "detected late by",
        "against a tuned interval",
        "the same, from 2 s on",
    ]
    return Part(
        title="Requests and detection delay",
        tables=[Table(["a prediction of about", *header], rows)],
        figures=figures,
        ratios=list(simulation.TARGETS),
        targets=[Target(name, name.replace("_", " "), limit) for name, limit in simulation.TARGETS.items()],
        notes=[
            "`benchmarks/simulate_polling.py` runs the schedule itself under a virtual clock; its docstring says how.",
            "The last two columns: our polls divided by those of an opponent who knows beforehand how long such "
            "predictions take, and polls at the best fixed interval for it, with no more delay than ours. Above 1 is "
            "the price of not knowing the duration.",
        ],
    )


def _module(name: str) -> Callable[[], Part]:
    """Return the function of a part that is a module with ``run() -> Part``; the module is imported when it runs."""

    def run() -> Part:
        part = import_module(f"benchmarks.{name}").run()
        assert isinstance(part, Part)
        return part

    return run


PARTS: dict[str, Callable[[], Part]] = {
    "requests": _simulated,
    "cpu": _module("cpu_per_poll"),
    "many": _module("many_waits"),
    "slow": _module("slow_answers"),
    "answers": _module("answers"),
    "imports": _module("imports"),
    "triggerer": _module("triggerer"),
    "end_to_end": _module("end_to_end"),
}
"""In the order in which they run."""
ON_REQUEST: dict[str, Callable[[], Part]] = {
    "restart": _module("restart"),
    "soak": _module("soak"),
    "outputs": _module("outputs"),
    "prompts": _module("prompts"),
}
"""They run only by name: long parts, whose verdict does not depend on the machine, and parts that are not waits."""


def main() -> None:
    """Run the requested parts, or compare two runs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure what docs/benchmarks.md says.")
    known = f"of {', '.join(PARTS)} (default) and {', '.join(ON_REQUEST)}"
    parser.add_argument("parts", nargs="*", metavar="PART", help=known)
    parser.add_argument("--write", nargs="?", type=Path, const=DOCUMENT, metavar="FILE", help=f"renew {DOCUMENT.name}")
    parser.add_argument(
        "--compare", nargs=2, type=Path, metavar="JSON", help="of two earlier runs, and do nothing else"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - {*PARTS, *ON_REQUEST}:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    if arguments.compare:
        before, after = (json.loads(path.read_text(encoding="utf-8"))["parts"] for path in arguments.compare)
        print(compare(before, after).text())
        return
    _run(arguments.parts or list(PARTS), arguments.write)


def _run(names: list[str], document: Path | None) -> None:
    machine = describe()
    print(machine.text() + "\n", flush=True)
    parts: dict[str, Part] = {}
    for name in names:
        began = time.monotonic()
        parts[name] = (PARTS | ON_REQUEST)[name]()
        print(parts[name].text() + f"({time.monotonic() - began:.0f} s)\n", flush=True)
    RESULTS.mkdir(exist_ok=True)
    earlier = _earlier(parts)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    results = {name: part.to_json() for name, part in parts.items()}
    path.write_text(
        json.dumps({"machine": {row[0]: row[1] for row in machine.rows}, "parts": results}, indent=1), encoding="utf-8"
    )
    table = compare(earlier, results)
    if table.rows:
        print(f"== Against the last run of each part\n\n{table.text()}\n")
    print(f"The figures are in {path.relative_to(ROOT)}")
    missed = sum(verdict != "ok" for part in results.values() for verdict in part["verdicts"].values())
    print(f"{missed} targets MISSED, {sum(row[-1] == 'DISAGREE' for row in table.rows)} ratios DISAGREE")
    if document is not None:
        blocks = {"machine": f"{machine.markdown()}", **{name: part.markdown() for name, part in parts.items()}}
        write_markdown(document, blocks)


def _earlier(names: Iterable[str]) -> dict[str, Any]:
    """Return the results of the last run of each of these parts; not every run has all parts."""
    results: dict[str, Any] = {}
    for path in sorted(RESULTS.glob("*.json")):
        parts = json.loads(path.read_text(encoding="utf-8"))["parts"]
        results.update({name: parts[name] for name in names if name in parts})
    return results


if __name__ == "__main__":
    main()
