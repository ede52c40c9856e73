"""``python -m tests.simulation``: runs stories by seed, and tells the failing ones."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.support import private_airflow

private_airflow()

from tests.simulation import coverage  # noqa: E402
from tests.simulation.generate import make_story  # noqa: E402
from tests.simulation.run import Result, run_story, shorten  # noqa: E402
from tests.simulation.story import Story  # noqa: E402

AT_ONCE = 50
"""So many seeds are given to a process at once."""
SHOWN_FAILURES = 5


def run_seeds(first: int, count: int) -> tuple[list[tuple[int, str]], set[tuple[str, str]]]:
    """Run the stories of some seeds; return what went wrong, by seed, and the pairs that were met."""
    wrong: list[tuple[int, str]] = []
    pairs: set[tuple[str, str]] = set()
    for seed in range(first, first + count):
        result = run_story(make_story(seed))
        pairs |= result.pairs
        if result.wrong:
            wrong.append((seed, result.wrong))
    return wrong, pairs


def tell(story: Story, seed: int | None) -> Result:
    """Print a failing story as short as it can be, and how to run it again."""
    result = run_story(story)
    if result.wrong is None:
        print("Everything holds.")
        return result
    short = shorten(story, lambda other: run_story(other).kind == result.kind)
    again = run_story(short)
    print(f"{again.wrong}\n", *short.lines, sep="\n")
    print(f"\nAs a permanent story:\n{json.dumps(short.to_json())}")
    if seed is not None:
        print(f"\nTo run it again: make simulate SEED={seed}")
    return again


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="make simulate")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--story", type=Path, help="a permanent story")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--coverage", action="store_true", help="print which events have met which states of a record")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    if options.seed is not None or options.story is not None:
        story = (
            make_story(options.seed)
            if options.story is None
            else Story.from_json(json.loads(options.story.read_text()))
        )
        print(*story.lines, "", sep="\n")
        result = tell(story, options.seed)
        if options.trace:
            print(*result.trace, sep="\n")
        return int(result.wrong is not None)
    return run_many(options.first, options.seeds, options.jobs, is_table_wanted=options.coverage)


def run_many(first: int, seeds: int, jobs: int, *, is_table_wanted: bool) -> int:
    """Run many seeds on all cores; print the failures, what they cost, and what they have met."""
    started = time.monotonic()
    wrong: list[tuple[int, str]] = []
    pairs: set[tuple[str, str]] = set()
    chunks = [(number, min(AT_ONCE, first + seeds - number)) for number in range(first, first + seeds, AT_ONCE)]
    with ProcessPoolExecutor(jobs) as pool:
        for found, met in pool.map(run_seeds, *zip(*chunks, strict=True)):
            wrong += found
            pairs |= met
    seconds = time.monotonic() - started
    print(f"{seeds} stories in {seconds:.0f} s ({1000 * seconds * jobs / seeds:.1f} ms each on a core)")
    if is_table_wanted:
        print(coverage.table(pairs))
    print(coverage.summary(pairs))
    print(f"{len(wrong)} stories failed")
    kinds: dict[str, int] = {}
    for seed, words in wrong:
        kind = Result(words, [], set()).kind
        if kind not in kinds and len(kinds) < SHOWN_FAILURES:
            print(f"\n--- seed {seed} ---")
            tell(make_story(seed), seed)
        kinds[kind] = kinds.get(kind, 0) + 1
    for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
        print(f"{count:6} x {kind}")
    return int(bool(wrong or coverage.unexpected(pairs)))


if __name__ == "__main__":
    sys.exit(main())
