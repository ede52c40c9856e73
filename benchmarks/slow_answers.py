"""Measure what slow answers (20 % of them take 45 s) do to the waits whose answers are quick.

CometAPI's query route has been observed to answer like this.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from benchmarks import processes
from benchmarks.report import Part, Table, Target, number

WAITS = 1000
INTERVAL = 5.0
SHARE = 0.2
SECONDS = 45.0
ENDS = (4.0, 22.0)
"""The predictions end evenly between these seconds from the start."""
NOTES = [
    f"{WAITS:,} waits in one loop poll every {INTERVAL:g} s for predictions that end between {ENDS[0]:g} and "
    f"{ENDS[1]:g} s after the start. In the second run each answer has a chance of {SHARE:.0%} to take {SECONDS:g} s. "
    "Compared are the predictions that did not end during a slow answer, and whose next poll had none: no client could "
    "detect the end of the others sooner. Delay: from a prediction's end to its trigger's event. Both runs take place "
    "at the same time.",
]


def measure(slow_share: float) -> dict[str, float]:
    """Return the figures of a run: seconds from the end of a prediction to its event."""
    with processes.server(slow_share=slow_share, slow_seconds=SECONDS) as server, processes.client("comet") as client:
        url = server.hello["url"]
        server.call()
        begin, step = time.time() + 1.0, (ENDS[1] - ENDS[0]) / WAITS
        # Waits that start after each other end far apart, so that the order of the starts does not matter.
        due = {f"w{i}.t{int((begin + ENDS[0] + (i * 617 % WAITS) * step) * 1000)}": i for i in range(WAITS)}
        ends = client.call(url=url, ids=list(due), interval=INTERVAL, spread=INTERVAL)["ends"]
        held = set(server.call()["held"])
    delays = sorted(end - int(id.rpartition(".t")[2]) / 1000 for id, end in ends.items() if id not in held)
    return {
        "mean_s": fmean(delays),
        "p95_s": delays[int(len(delays) * 0.95)],
        "compared": len(delays),
        "unfinished": WAITS - len(ends),
    }


def run() -> Part:
    """Measure with and without slow answers."""
    with ThreadPoolExecutor() as pool:
        quick, slow = pool.map(measure, [0.0, SHARE])
    figures = {f"quick_{name}": value for name, value in quick.items()}
    figures |= {f"slow_{name}": value for name, value in slow.items()}
    figures["mean_ratio"] = slow["mean_s"] / quick["mean_s"]
    figures["p95_ratio"] = slow["p95_s"] / quick["p95_s"]
    rows = [
        [words, *(number(result[name]) for name in ("mean_s", "p95_s", "compared", "unfinished"))]
        for words, result in (("all answers quick", quick), (f"{SHARE:.0%} take {SECONDS:g} s", slow))
    ]
    return Part(
        title="Slow answers",
        tables=[Table(["", "mean delay, s", "p95, s", "predictions compared", "without an end"], rows)],
        figures=figures,
        ratios=["mean_ratio", "p95_ratio"],
        targets=[
            Target("mean_ratio", "mean delay of the others, against no slow answers", 2, unit="x"),
            Target("p95_ratio", "p95 of it", 2, unit="x"),
            Target("slow_unfinished", "waits without an end", 0),
        ],
        notes=NOTES,
    )
