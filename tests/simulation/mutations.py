"""Ten faults that could be put into the product: each breaks one of its rules, and a story has to find it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Change:
    """A text of the package that is replaced by another one.

    :param file: below the package.
    :param old: stands in the file exactly once.
    """

    file: str
    old: str
    new: str


@dataclass(frozen=True)
class Mutant:
    """A fault of the product.

    :param name: for the command line.
    :param what: the product with this fault, in a sentence.
    """

    name: str
    what: str
    changes: tuple[Change, ...]


MUTANTS = (
    Mutant(
        "no_intent",
        "A create is sent without 'sending' on record.",
        (
            Change(
                "submissions/submission.py",
                "            self.write(intent, is_stopped=lambda: self.stop.killed)\n",
                "            self.record = intent\n",
            ),
        ),
    ),
    Mutant(
        "late_intent",
        "'sending' is recorded when the answer has come.",
        (
            Change(
                "client/sync_client.py",
                """\
        journal.sending(self.config.key_from)
        try:
            response = self._exchange(request, body)
""",
                """\
        try:
            try:
                response = self._exchange(request, body)
            finally:
                journal.sending(self.config.key_from)
""",
            ),
        ),
    ),
    Mutant(
        "504_rejects",
        "A 504 counts as a proof that a create was not accepted.",
        (
            Change(
                "api/answers.py",
                "    return (response.status == 503 and in_envelope) or",
                "    return response.status == 504 or (response.status == 503 and in_envelope) or",
            ),
        ),
    ),
    Mutant(
        "clear_is_retry",
        "A clear is taken for a retry.",
        (
            Change(
                "submissions/stored_record.py",
                "        return not CLEAR_EMPTIES_STORE and recorded not in (None, self._ti.max_tries)\n",
                "        return False and recorded\n",
            ),
        ),
    ),
    Mutant(
        "other_map_index",
        "A mapped task hands over what is on record at its place, whatever its input is now.",
        (
            Change(
                "submissions/submission.py",
                "        if after_clear or is_mapped:\n",
                "        if after_clear and not is_mapped:\n",
            ),
        ),
    ),
    Mutant(
        "delivered_before_xcom",
        "'delivered' is recorded before the result is in XCom.",
        (
            Change(
                "operators/prediction.py",
                """\
        if self.do_xcom_push:  # what is called delivered has to be there; Airflow's own push comes later, and may fail
            context["ti"].xcom_push(key=RETURN_VALUE_XCOM_KEY, value=prediction_id)
        submission.delivered(prediction_id)
""",
                """\
        submission.delivered(prediction_id)
        if self.do_xcom_push:
            context["ti"].xcom_push(key=RETURN_VALUE_XCOM_KEY, value=prediction_id)
""",
            ),
            Change(
                "operators/batch.py",
                """\
        if self.do_xcom_push:
            ti.xcom_push(key=RETURN_VALUE_XCOM_KEY, value=ids)
        submission.delivered()
""",
                """\
        submission.delivered()
        if self.do_xcom_push:
            ti.xcom_push(key=RETURN_VALUE_XCOM_KEY, value=ids)
""",
            ),
        ),
    ),
    Mutant(
        "log_after_record",
        "The id of a new prediction is logged after it is on record.",
        (
            Change(
                "submissions/submission.py",
                """\
                metrics.created(prediction_id, self._model, self._reason, self._ti)
                self.update(**fields)
""",
                """\
                self.update(**fields)
                metrics.created(prediction_id, self._model, self._reason, self._ti)
""",
            ),
        ),
    ),
    Mutant(
        "poll_error_ends_wait",
        "A poll that fails ends the wait, although a later one may not.",
        (
            Change(
                "polling/wait.py",
                """\
        if error.retryable:
            self._kind = None
            return True
""",
                """\
        if error.retryable:
            return False
""",
            ),
        ),
    ),
    Mutant(
        "deadline_before_poll",
        "At the deadline a wait ends, whatever its last poll says.",
        (
            Change(
                "polling/wait.py",
                "        self.polls += 1\n",
                """\
        self.polls += 1
        if now >= self.deadline:
            return self._timeout_error(result, max(0.0, now - self.started_at))
""",
            ),
        ),
    ),
    Mutant(
        "manifest_before_files",
        "The files of a prediction are written after the manifest that names them.",
        (
            Change(
                "outputs/writer.py",
                """\
        with open_atomic(path) as file:
            for chunk in chunks:
                self._downloader.raise_if_aborted()
                file.write(chunk)
""",
                """\
        is_manifest = path.name.endswith(manifest.SUFFIX)
        prediction_id = path.name.removesuffix(manifest.SUFFIX) if is_manifest else path.name.rpartition("-")[0]
        held = vars(self).setdefault("held", {}).setdefault(prediction_id, [])
        held.append((path, [*chunks]))
        while is_manifest and held:
            path, chunks = held.pop()
            with open_atomic(path) as file:
                for chunk in chunks:
                    self._downloader.raise_if_aborted()
                    file.write(chunk)
""",
            ),
        ),
    ),
)
