"""The mutants fit the present code, and a fault is found in the process that is given one."""

from __future__ import annotations

import pytest

from tests.simulation.mutants import ALL_MUTANTS, MutantError, find_failure, mutated
from tests.simulation.mutations import Change, Mutant
from tests.simulation.run import run_story
from tests.simulation.story import Story

BY_NAME = {mutant.name: mutant for mutant in ALL_MUTANTS}
KILLED_WHEN_ACCEPTED = Story(
    {"shape": "single", "retries": 1},
    [{"kind": "kill", "task": "create", "index": -1, "attempt": 1, "effect": "send", "nth": 1, "phase": "after"}],
)


def test_there_is_a_mutant_of_each_rule() -> None:
    """Seventeen rules, each of which one mutant breaks."""
    assert [mutant.name for mutant in ALL_MUTANTS] == [
        "no_intent",
        "late_intent",
        "504_rejects",
        "clear_is_retry",
        "other_map_index",
        "delivered_before_xcom",
        "log_after_record",
        "poll_error_ends_wait",
        "deadline_before_poll",
        "manifest_before_files",
        "hand_over_drops_rest",
        "bitmap_of_other_list",
        "stored_again",
        "hand_over_late",
        "hand_over_by_age_alone",
        "event_carries_results",
        "names_by_place",
    ]


@pytest.mark.parametrize("mutant", ALL_MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_present_code(mutant: Mutant) -> None:
    """Its changes apply to a copy of the package, and the copy compiles."""
    with mutated(mutant) as folder:
        for change in mutant.changes:
            path = folder / "airflow_provider_comet" / change.file
            assert change.new in path.read_text()
            compile(path.read_text(), path, "exec")


def test_a_mutant_of_other_code_is_an_error() -> None:
    """A mutant that changes nothing would count as a fault that nobody finds."""
    mutant = Mutant("outdated", "", (Change("polling/wait.py", "no such text", ""),))
    with (
        pytest.raises(MutantError, match=r"(?s)outdated: .*polling/wait\.py has .* 0 times .*no such text"),
        mutated(mutant),
    ):
        pass


def test_a_story_finds_a_mutant_and_holds_without_it() -> None:
    """A process is killed after its create was accepted: without an intent on record the next try buys again."""
    assert run_story(KILLED_WHEN_ACCEPTED).wrong is None
    with mutated(BY_NAME["no_intent"]) as folder:
        failure = find_failure(folder, [Story({"shape": "single"}), KILLED_WHEN_ACCEPTED])
    assert failure is not None
    assert failure[0] == 1
    assert "bought again" in failure[1]
