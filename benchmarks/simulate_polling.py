"""Simulate how many polls a wait takes and how late it detects the end: ``polling/schedule.py`` with a virtual clock.

``python -m benchmarks.simulate_polling`` prints the figures and whether each target is met. There is no network and no
sleep, and the seed is fixed: the figures are the same on every machine.

Definitions:

- A prediction takes a lognormal time with a mean of 1.5, 8, 60, 300 or 1,800 s and a coefficient of variation (CV) of
  0.25 or 0.6. 3 % are cold starts, which take 20 to 90 s more (uniform). These ten cells have equal weight; together
  they are the mix. The times of a cell are stratified, one from each of equally likely slices, so that few are enough.
- A wait starts at the age of 0 s (an operator: with the create) or 2 s (a sensor that gets an id). A wait from the age
  of 2 s polls at once, and knows the age (``created_at``). A wait from the age of 0 s polls first when ``next_delay``
  says. ``next_delay`` also gives the time of each further poll. A request takes no time, and no answer is a 429.
- The delay of a wait is the time of the poll that gets the result minus the end, or minus the start of the wait if the
  prediction had ended before: no wait could have detected it sooner. The relative delay is the delay divided by the
  time that this prediction took, cold start included. Means are means of these quotients.
- The requests of a wait are its polls, first and last included, without the create.
- The opponent has a fixed interval, without jitter and without a minimum: a poll after each interval and, from the age
  of 2 s, also at once. The best opponent has the fewest requests of those whose mean relative delay over the mix is not
  above ours. A ratio is our mean number of requests divided by its.
- The honest opponent knows what we don't: it has the best interval for each duration. Its ratios have no target; above
  1 they are the price of not knowing the duration.
- The delay of a duration is the mean over both CVs, from the age of 0 or 2 s, whichever is worse.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from operator import mul
from statistics import NormalDist, fmean
from typing import NamedTuple

from airflow_provider_comet.polling.schedule import next_delay

MEANS = (1.5, 8.0, 60.0, 300.0, 1800.0)
SPREADS = (0.25, 0.6)
START_AGES = (0.0, 2.0)
COLD_SHARE = 0.03
COLD_SECONDS = (20.0, 90.0)
SAMPLES = 4000
SEED = 1

TARGETS = {
    "requests_ratio_age_0": 0.25,
    "requests_ratio_age_2": 0.5,
    "relative_delay_8": 0.12,
    "relative_delay_60": 0.10,
    "relative_delay_300": 0.10,
    "relative_delay_1800": 0.03,
}
"""No figure may be above its target."""


class Cost(NamedTuple):
    """The cost of a wait, or the average cost of several waits."""

    requests: float
    relative_delay: float


def mean(costs: Sequence[Cost]) -> Cost:
    """Return the average cost, each with equal weight."""
    return Cost(fmean(cost.requests for cost in costs), fmean(cost.relative_delay for cost in costs))


def durations(average: float, spread: float, samples: int, rng: random.Random) -> list[float]:
    """Return how long the predictions of a cell take; cold starts are spread evenly over fast and slow predictions."""
    variance = math.log(1 + spread**2)
    warm = NormalDist(math.log(average) - variance / 2, math.sqrt(variance))
    taken = []
    for i in range(samples):
        is_cold = i * COLD_SHARE % 1 < COLD_SHARE
        cold = rng.uniform(*COLD_SECONDS) if is_cold else 0.0
        taken.append(math.exp(warm.inv_cdf((i + rng.uniform(0.001, 0.999)) / samples)) + cold)
    return taken


def adaptive(duration: float, start_age: float, rng: random.Random) -> Cost:
    """Wait for a prediction by ``next_delay``; its age is the clock."""
    age = start_age or next_delay(0.0, poke_interval=None, retry_after=None, chance=rng.random())
    requests = 1
    while age < duration:
        age += next_delay(age, poke_interval=None, retry_after=None, chance=rng.random())
        requests += 1
    return Cost(requests, (age - max(duration, start_age)) / duration)


def best_fixed(taken: Sequence[float], start_age: float, no_later: float) -> Cost:
    """Return the cost of the longest fixed interval that is on average no later.

    The delay does not grow steadily with the interval: if all predictions take about the same time, a single poll just
    after it beats two polls. So the search starts far above, goes down in steps of 5 %, and bisects only the last step.

    :param taken: how long the predictions take.
    :param start_age: the age at which the waits start.
    :param no_later: the maximum of the mean relative delay.
    """
    remaining = [max(0.0, duration - start_age) for duration in taken]
    shares = [1 / duration / len(taken) for duration in taken]
    waited = sum(map(mul, remaining, shares))

    def cost(interval: float) -> Cost:
        polls = [math.ceil(seconds / interval) for seconds in remaining]
        return Cost(fmean(polls) + (start_age > 0), interval * sum(map(mul, polls, shares)) - waited)

    too_long = 2 * max(taken)  # each poll would be later than the whole duration
    while cost(too_long / 1.05).relative_delay > no_later:
        too_long /= 1.05
    good = too_long / 1.05
    for _ in range(8):
        middle = (good + too_long) / 2
        if cost(middle).relative_delay > no_later:
            too_long = middle
        else:
            good = middle
    return cost(good)


def run(samples: int = SAMPLES, seed: int = SEED) -> dict[str, float]:
    """Simulate all waits and return the figures by name.

    :param samples: predictions in each of the ten cells.
    :param seed: of the random numbers.
    """
    figures: dict[str, float] = {}
    for start_age in START_AGES:
        rng = random.Random(seed)
        at_age = f"age_{start_age:g}"
        taken: dict[float, list[float]] = {}
        ours: list[Cost] = []
        honest: list[Cost] = []
        for average in MEANS:
            taken[average] = [duration for spread in SPREADS for duration in durations(average, spread, samples, rng)]
            cost = mean([adaptive(duration, start_age, rng) for duration in taken[average]])
            tuned = best_fixed(taken[average], start_age, cost.relative_delay)
            ours.append(cost)
            honest.append(tuned)
            figures[f"requests_{average:g}_{at_age}"] = cost.requests
            figures[f"relative_delay_{average:g}_{at_age}"] = cost.relative_delay
            figures[f"honest_ratio_{average:g}_{at_age}"] = cost.requests / tuned.requests
            worst = f"relative_delay_{average:g}"
            figures[worst] = max(figures.get(worst, 0.0), cost.relative_delay)
        mix = mean(ours)
        fixed = best_fixed([duration for cell in taken.values() for duration in cell], start_age, mix.relative_delay)
        figures[f"requests_mix_{at_age}"] = mix.requests
        figures[f"relative_delay_mix_{at_age}"] = mix.relative_delay
        figures[f"honest_ratio_mix_{at_age}"] = mix.requests / mean(honest).requests
        figures[f"requests_fixed_{at_age}"] = fixed.requests
        figures[f"requests_ratio_{at_age}"] = mix.requests / fixed.requests
    return figures


def report(figures: dict[str, float]) -> str:
    """Return the figures as a table, and each target with ``ok`` or ``MISSED``."""
    lines = []
    for start_age in START_AGES:
        at_age = f"age_{start_age:g}"
        lines.append(f"wait from the age of {start_age:g} s   requests   relative delay   honest opponent's ratio")
        for row in [*(f"{average:g}" for average in MEANS), "mix"]:
            requests, delay, ratio = (
                figures[f"{column}_{row}_{at_age}"] for column in ("requests", "relative_delay", "honest_ratio")
            )
            lines.append(f"{row:>24}   {requests:8.1f}   {delay:14.1%}   {ratio:23.2f}")
        lines.append(f"{'best fixed for the mix':>24}   {figures[f'requests_fixed_{at_age}']:8.1f}\n")
    for name, target in TARGETS.items():
        met = "ok" if figures[name] <= target else "MISSED"
        lines.append(f"{name:>24}   {figures[name]:8.3f}   at most {target:<6g}   {met}")
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    print(report(run()))


if __name__ == "__main__":
    main()
