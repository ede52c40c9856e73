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


def digest_of_stories(seeds: Iterable[int]) -> str:
    """Return a digest of what the generator makes of some seeds."""
    return _digest(_text(make_story(seed)) for seed in seeds)


def digest_of_run(seed: int) -> str:
    """Return a digest of a seed's story, of everything that happens in it, and of what is found wrong."""
    story = make_story(seed)
    result = run_story(story)
    pairs = [f"{label}: {state}" for label, state in sorted(result.pairs)]
    return _digest([_text(story), *result.trace, *pairs, f"{result.wrong}"])


def _text(story: Story) -> str:
    return json.dumps(story.to_json(), sort_keys=True)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def main() -> None:
    """Print the digests of some seeds, and one of them all."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.digest")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    found = [digest_of_run(seed) for seed in seeds]
    for seed, digest in zip(seeds, found, strict=True):
        print(seed, digest)
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: stories {digest_of_stories(seeds)}, with their runs {_digest(found)}", file=sys.stderr)


if __name__ == "__main__":
    main()
