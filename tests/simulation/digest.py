"""``python -m tests.simulation.digest``: one line for each seed, to compare machines and releases of Python.

The same seed gives the same story, and the same story happens in the same order, everywhere. Where two lists differ,
``--trace`` of ``python -m tests.simulation`` shows the first effect that does.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable

from tests.support import private_airflow

private_airflow()

from tests.simulation.generate import make_story  # noqa: E402
from tests.simulation.run import run_story  # noqa: E402
from tests.simulation.story import Story  # noqa: E402


def digest_of_story(story: Story) -> str:
    """Return a digest of what the generator made."""
    return _digest([json.dumps(story.to_json(), sort_keys=True)])


def digest_of_run(story: Story) -> str:
    """Return a digest of a story, of everything that happened in it, and of what was found wrong."""
    result = run_story(story)
    pairs = [f"{label}: {state}" for label, state in sorted(result.pairs)]
    return _digest([json.dumps(story.to_json(), sort_keys=True), *result.trace, *pairs, f"{result.wrong}"])


def digests(seeds: Iterable[int]) -> list[str]:
    """Return the digest of each seed's story and run."""
    return [digest_of_run(make_story(seed)) for seed in seeds]


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def main() -> None:
    """Print the digests of some seeds, and one of them all."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.digest")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    found = digests(seeds)
    for seed, digest in zip(seeds, found, strict=True):
        print(seed, digest)
    stories = _digest(digest_of_story(make_story(seed)) for seed in seeds)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: stories {stories}, stories and runs {_digest(found)}", file=sys.stderr)


if __name__ == "__main__":
    main()
