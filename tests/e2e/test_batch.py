"""A batch whose process is killed at a random point, many times over: what is paid, and what is known of it."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

from airflow_provider_comet.emulator import Emulator
from tests.e2e.crash_run import until
from tests.e2e.rest import FINISHED
from tests.e2e.spending import assert_logs_agree, logged_creates
from tests.e2e.standalone import Standalone

DAGS = Path(__file__).resolve().parent / "batch_dags"
# 20 runs of each policy are the real test; they take two cores ten minutes: BATCH_RUNS=20 make e2e
RUNS = int(os.environ.get("BATCH_RUNS", "5"))
COUNT = 500
IN_FLIGHT = 8
ANSWER_SECONDS = 0.05
"""How long the API takes to answer a create, so that several are on their way."""


def test_killed_anywhere(tmp_path: Path) -> None:
    """Killed at a random point and retried, a batch buys each input once. Nobody can know what became of the creates
    that were on their way: with ``fail`` they are listed by input, with ``retry`` they are bought again."""
    settings = {"BATCH_COUNT": str(COUNT), "AIRFLOW__CORE__PARALLELISM": "4"}
    with Emulator(duration=1) as emulator:
        emulator.fault(method="POST", delay=ANSWER_SECONDS, count=None)
        settings["AIRFLOW_CONN_COMETAPI_DEFAULT"] = emulator.connection_json()
        with Standalone(dags_folder=DAGS, home=tmp_path / "airflow", env=settings) as airflow:
            for dag_id in ("batch_fail", "batch_retry"):
                airflow.rest.wait_for_dag(dag_id)
            runs = [
                (dag_id, airflow.rest.trigger(dag_id)) for _ in range(RUNS) for dag_id in ("batch_fail", "batch_retry")
            ]
            for dag_id, run_id in runs:
                until(
                    f"{dag_id} has ended",
                    lambda run=(dag_id, run_id): airflow.rest.run_state(*run) in FINISHED,
                    timeout=900,
                    pause=2,
                )
            ledger = emulator.ledger()["creates"]
            print(f"\n{'policy':12} {'tries':>5} {'accepted':>8} {'open':>4} state")
            for dag_id, run_id in runs:
                Story(airflow, dag_id, run_id, ledger).check()
            # Those that were on their way when their process died, at most.
            unlogged = len(ledger) - len(logged_creates(airflow.home))
            assert unlogged <= len(runs) * IN_FLIGHT
            assert_logs_agree(airflow.home, emulator, unlogged=unlogged)


class Story:
    """What became of one run."""

    def __init__(self, airflow: Standalone, dag_id: str, run_id: str, ledger: list[dict[str, Any]]) -> None:
        rest = airflow.rest
        self.policy = dag_id.removeprefix("batch_")
        self.prompts = [f"{run_id} {number}" for number in range(COUNT)]
        self.made = {
            create["id"]: create["input"]["prompt"] for create in ledger if create["input"]["prompt"] in {*self.prompts}
        }
        (ti,) = rest.task_instances(dag_id, run_id)
        self.state, self.tries = ti["state"], ti["try_number"]
        key = "return_value" if self.state == "success" else "created"
        self.ids: list[str | None] = rest.xcom(dag_id, run_id, "create", key=key)
        self.rejected: list[dict[str, Any]] = rest.xcom(dag_id, run_id, "create", key="rejected")
        self.log = rest.log(dag_id, run_id, "create", try_number=self.tries)

    def check(self) -> None:
        """Each input has one create, but for those of unknown fate, which are listed."""
        paid = Counter(self.made.values())
        unknown = [index for index, prediction_id in enumerate(self.ids) if prediction_id is None]
        print(f"{self.policy:12} {self.tries:5} {len(self.made):8} {len(unknown):4} {self.state}", flush=True)
        assert self.tries >= 2, "the process was not killed"
        known = [pair for pair in zip(self.ids, self.prompts, strict=True) if pair[0] is not None]
        assert [self.made[prediction_id] for prediction_id, _ in known] == [prompt for _, prompt in known]
        assert [item["index"] for item in self.rejected] == unknown
        assert all(item["type"] == "AmbiguousSubmissionError" for item in self.rejected)
        if self.policy == "fail":
            assert max(paid.values()) == 1
            assert len(unknown) <= IN_FLIGHT
            assert {*self.prompts} - {*paid} <= {self.prompts[index] for index in unknown}
            assert self.state == ("failed" if unknown else "success")
            assert all(f'inputs[{index}] {{"prompt": "{self.prompts[index][:20]}' in self.log for index in unknown)
        else:
            assert unknown == []
            assert {*paid} == {*self.prompts}
            assert len(self.made) <= COUNT + IN_FLIGHT
            assert self.state == "success"
