"""``polling/threads.py``: the names that tests replace are Python's own threads."""

from __future__ import annotations

import threading

from airflow_provider_comet.polling import threads


def test_a_function_runs_in_a_thread_of_its_own() -> None:
    """Only the thread that starts others gets signals."""
    found: list[tuple[str, bool]] = []
    done = threading.Event()

    def note() -> None:
        found.append((threading.current_thread().name, threads.is_main()))
        done.set()

    threads.start(note, "of-its-own")
    assert done.wait(10)
    assert found == [("of-its-own", False)]
    assert threads.is_main()
