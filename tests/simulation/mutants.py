"""``python -m tests.simulation.mutants [name ...]``: does the simulator find faults that are put into the product?

Each mutant of ``mutations.py`` and ``store_mutations.py`` is applied to a copy of the package in a temporary folder. A
process of its own runs stories on that copy, until one fails that holds with the package as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import private_airflow

private_airflow()

from tests.simulation.generate import make_story  # noqa: E402
from tests.simulation.mutations import MUTANTS, Mutant  # noqa: E402
from tests.simulation.run import run_story  # noqa: E402
from tests.simulation.store_mutations import STORE_MUTANTS  # noqa: E402
from tests.simulation.story import Story  # noqa: E402

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "airflow_provider_comet"
ALL_MUTANTS = (*MUTANTS, *STORE_MUTANTS)
SEEDS = 2_000
"""A mutant that no story of so many seeds finds has survived."""
SHOWN_CHARACTERS = 140


class MutantError(Exception):
    """A mutant can't be applied or run: that says nothing about the simulator."""


@contextmanager
def mutated(mutant: Mutant) -> Iterator[Path]:
    """Give a temporary folder with a copy of the package that has the mutant's fault.

    :raises MutantError: the package has changed, so that the mutant does not fit any more.
    """
    with tempfile.TemporaryDirectory(prefix="comet-mutant-") as folder:
        copy = Path(folder).resolve() / PACKAGE
        shutil.copytree(CHECKOUT / PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        for change in mutant.changes:
            path = copy / change.file
            text = path.read_text() if path.exists() else ""
            if (found := text.count(change.old)) != 1:
                raise MutantError(
                    f"mutant {mutant.name}: {PACKAGE}/{change.file} has the text to replace {found} times instead of "
                    f"once; adapt the mutant to the code:\n{change.old}"
                )
            path.write_text(text.replace(change.old, change.new))
        yield copy.parent


def find_failure(folder: Path, stories: Sequence[int | Story]) -> tuple[int, str] | None:
    """Run stories in a process that imports the package from a folder, until one fails.

    :param stories: each as it is, or by its seed.
    :returns: the place of the failing one in the list, and what is wrong.
    :raises MutantError: the process does not come to an end.
    """
    given, found = folder / "given.json", folder / "found.json"
    given.write_text(json.dumps([story if isinstance(story, int) else story.to_json() for story in stories]))
    found.unlink(missing_ok=True)
    paths = os.pathsep.join([str(folder), str(CHECKOUT)])
    process = subprocess.run(
        [sys.executable, "-m", "tests.simulation.mutants", "--in", str(folder)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise MutantError(f"the process in {folder} has ended with {process.returncode}:\n{process.stderr[-3000:]}")
    value: Any = json.loads(found.read_text())
    return None if value is None else (value[0], value[1])


def find_failure_here(folder: Path) -> None:
    """Do what ``find_failure`` asks this process for."""
    import airflow_provider_comet

    origin = Path(airflow_provider_comet.__file__ or "")
    if not origin.is_relative_to(folder):
        raise MutantError(f"{PACKAGE} comes from {origin}, not from {folder}")
    failure = None
    for number, story in enumerate(json.loads((folder / "given.json").read_text())):
        result = run_story(make_story(story) if isinstance(story, int) else Story.from_json(story))
        if result.wrong is not None:
            failure = number, result.wrong
            break
    (folder / "found.json").write_text(json.dumps(failure))


def hunt(mutant: Mutant, first: int = 0, seeds: int = SEEDS) -> tuple[int, str] | None:
    """Return the first seed whose story fails because of a mutant, and what is wrong; ``None``: it has survived."""
    with mutated(mutant) as folder:
        number = first
        while number < first + seeds:
            failure = find_failure(folder, range(number, first + seeds))
            if failure is None:
                return None
            number += failure[0]
            if run_story(make_story(number)).wrong is None:
                return number, failure[1]
            number += 1  # this story fails with the package as it is, too
    return None


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.mutants")
    parser.add_argument("names", nargs="*", metavar="name", help="default: all")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--in", type=Path, dest="folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        find_failure_here(options.folder)
        return 0
    if unknown := {*options.names} - {mutant.name for mutant in ALL_MUTANTS}:
        parser.error(
            f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(mutant.name for mutant in ALL_MUTANTS)}"
        )
    survivors = 0
    for mutant in ALL_MUTANTS:
        if options.names and mutant.name not in options.names:
            continue
        started = time.monotonic()
        failure = hunt(mutant, options.first, options.seeds)
        survivors += failure is None
        seed, wrong = ("-", "SURVIVED") if failure is None else (str(failure[0]), failure[1])
        shown = wrong if len(wrong) <= SHOWN_CHARACTERS else f"{wrong[:SHOWN_CHARACTERS]}..."
        print(f"{mutant.name:22} {seed:>6}  {shown}  ({time.monotonic() - started:.0f} s)", flush=True)
    return int(bool(survivors))


if __name__ == "__main__":
    sys.exit(main())
