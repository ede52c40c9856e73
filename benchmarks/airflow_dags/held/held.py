"""Task instances that never start, because their pool has no slot; `benchmarks.hold` defers them."""

import os

from airflow.sdk import dag, task


@dag(dag_id="held", schedule=None)
def held():
    """Map a task over many numbers."""

    @task(pool="closed")
    def wait(number):
        return number

    wait.expand(number=[*range(int(os.environ.get("BENCHMARK_WAITS", "1000")))])


held()
