"""``submissions/digests.py``: equal things have equal digests, in each process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from airflow_provider_comet.submissions.digests import digest_of_id, digest_of_input, digest_of_reason


@pytest.mark.parametrize(
    ("first", "second", "is_same"),
    [
        ("Bad colour", "bad  colour ", True),
        ("Bad colour", "bad shape", False),
        ("job 12 failed", "job 13456 failed", True),
        ("(trace=0af3-11) no", "(trace=77c1-99) no", True),
        ("at 2026-01-01T10:00:00Z: no", "at 2026-01-02T11:30:00Z: no", True),
        ("", "", True),
        ("", "no", False),
        ("no: " + "x" * 300 + "a", "no: " + "x" * 300 + "b", True),
    ],
)
def test_reasons_are_compared_without_numbers_and_ids(first: str, second: str, is_same: bool) -> None:
    """What differs each time, although the reason is the same, is left out; so is what comes after 200 characters."""
    assert (digest_of_reason(first) == digest_of_reason(second)) is is_same


def test_the_predictions_own_id_is_left_out() -> None:
    """It may stand in the words, and have no digit."""
    assert (
        digest_of_reason("abc: no", "abc") == digest_of_reason("xyz: no", "xyz") != digest_of_reason("abc: no", "xyz")
    )


def test_a_digest_does_not_depend_on_the_process() -> None:
    """Sets have another order in each process, and an object's repr may hold its address."""
    code = (
        "from airflow_provider_comet.submissions.digests import digest_of_input\n"
        "class Camera: pass\n"
        "print(digest_of_input({'words': {'a', 'b', 'c', 'd'}, 'camera': [Camera()], 'n': 1}))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1]


def test_each_key_has_its_digest() -> None:
    """A change can be named by its key; what is no object has a single digest without a name."""
    first, second = digest_of_input({"prompt": "a", "seed": 1}), digest_of_input({"prompt": "b", "seed": 1})
    assert first.keys() == {"prompt", "seed"}
    assert [key for key in first if first[key] != second[key]] == ["prompt"]
    assert digest_of_input("text").keys() == {""}
    assert digest_of_input(None) == digest_of_input(None) != digest_of_input("None")


def test_ids_have_short_digests() -> None:
    """The record of a batch holds one for each of its predictions."""
    assert len(digest_of_id("abc")) == 8
    assert digest_of_id("abc") != digest_of_id("abd")
