"""Task instances that no worker takes, because their pool has no slot: `benchmarks.hold` makes them deferred ones."""

import os

from airflow.sdk import dag, task


@dag(dag_id="held", schedule=None)
def held():
    @task(pool="closed")
    def wait(number):
        return number

    wait.expand(number=[*range(int(os.environ.get("BENCHMARK_WAITS", "1000")))])


held()
