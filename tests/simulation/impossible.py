"""Which pairs of an event and the state of a record can't happen, and why."""

from __future__ import annotations

_RECORDS = "none sending rejected accepted reported delivered"

RULES: list[tuple[str, str, str]] = [
    (
        r"post (?!of).*|\w+ (before|after) (send|receive)",
        "none rejected accepted reported delivered",
        "`sending` is written before each POST, and what comes of it after the answer",
    ),
    (
        r"post .*|\w+ (before|after) (send|receive|store\.\w+)|store.*|change_inputs.*|clear (with|keeps|empties) .*",
        "wait store resumed",
        "only a create sends, and has a record and inputs",
    ),
    (
        r"get (?!of).*|output has expired|\w+ (before|after) get",
        "none sending rejected reported",
        "a create polls only a prediction that is on record, and whose end it has not reported",
    ),
    (r"prediction .*", "reported", "the end of a prediction is reported after it has ended"),
    (r"prediction .*", "wait store resumed", "a prediction is a create's"),
    (
        r"(file|download) (?!of).*|link has expired|two runs store|\w+ (before|after) (file|download)",
        f"{_RECORDS} wait",
        "only a store fetches files, and writes them",
    ),
    (
        r"file (begin|write|put|read) torn",
        "store resumed",
        "only a commit to what is no object store can leave half of a file",
    ),
    (
        r"resume begins|event.*|triggerer_.*|deferral times out|(clear|mark) while (deferred|queued)",
        "none sending rejected",
        "a create that waits has its prediction on record when it defers",
    ),
    (
        r"event_lost|event comes again while deferred|triggerer_.*|deferral times out|(clear|mark) while deferred",
        "reported",
        "a task that has reported a bad end does not defer again before it has bought anew",
    ),
    (
        r"resume begins|event comes again while running|(clear|mark) while queued",
        "store",
        "a store that is queued has left the worker, and one that runs after an event, too",
    ),
    (r"XComs are emptied", "resumed", "they are emptied when a try begins"),
    (r"poke begins|(clear|mark) while up_for_reschedule", f"{_RECORDS} store resumed", "only a sensor is rescheduled"),
    (r"(clear|mark) while upstream_failed", f"{_RECORDS} resumed", "a create has no task before it"),
    (r"change_inputs of mapped", "reported", "the creates that wait for their result are not mapped here"),
    (
        r"interrupt (before|after) state",
        f"{_RECORDS} wait store resumed",
        "the task's timeout ends before its state is reported",
    ),
    (r".* of a later task", "wait store resumed", "the columns are the records of the creates before it"),
]
"""A pattern of the event's name, columns, and the reason."""
