"""Faults that could be put into a store that waits: each breaks one of its rules, and a story has to find it."""

from __future__ import annotations

from tests.simulation.mutations import Change, Mutant

STORE_MUTANTS = (
    Mutant(
        "hand_over_drops_rest",
        "After a hand-over the store concludes, without waiting for what the event does not name.",
        (
            Change(
                "operators/store_attempt.py",
                "        return self._wait_for_missing("
                "CometError, is_known=bool(self.progress.stored), polls_first=False)\n",
                """\
        self.progress.ids = [key for key in self.progress.ids if key not in self.progress.missing]
        return self.list_writer.finish()
""",
            ),
        ),
    ),
    Mutant(
        "bitmap_of_other_list",
        "What is stored is read against another list than it is about.",
        (
            Change(
                "outputs/store_progress.py",
                '        if known.get("list") != progress._digest():\n',
                '        if "list" not in known:\n',
            ),
        ),
    ),
    Mutant(
        "stored_again",
        "After a hand-over the store has forgotten what it has stored.",
        (Change("outputs/store_progress.py", "self._bitmap(getattr(self, name))", "self._bitmap({*()})"),),
    ),
    Mutant(
        "hand_over_late",
        "What has finished waits for the others, however long they take.",
        (Change("polling/hand_over.py", "self._oldest + HAND_OVER_SECONDS", 'float("inf")'),),
    ),
    Mutant(
        "hand_over_by_age_alone",
        "What has finished waits for its hour, however many there are.",
        (Change("polling/hand_over.py", "self.pause(now) if self._count >= HAND_OVER_COUNT else ", ""),),
    ),
    Mutant(
        "event_carries_results",
        "The event of a store carries results through Airflow's database.",
        (Change("triggers/prediction.py", "carries_results=not self.hands_over", "carries_results=True"),),
    ),
    Mutant(
        "names_by_place",
        "Names go to what is stored in the order in which it was stored.",
        (
            Change(
                "outputs/store_items.py",
                "            for result, name in zip(found, self._names, strict=True)\n",
                "            for result, name in zip(found, sorted(self._names, key=str), strict=True)\n",
            ),
        ),
    ),
)
