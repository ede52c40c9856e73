"""Everything the API can answer, over real HTTP, through every way of asking: one table each for ends and for errors.

A row says what an answer means; the tests below say what each way of asking makes of a meaning. Time is injected.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_provider_comet.api import errors as e
from airflow_provider_comet.api.outcome import judge
from airflow_provider_comet.emulator import Emulator
from airflow_provider_comet.polling.events import read_event
from tests.integration.conftest import KEY
from tests.support.task_runner import MODES, Clock, Outcome, TaskRunner, dag, event_of, run_sensor

SCHNELL = "black-forest-labs/flux-schnell"
TIMEOUT = 600.0
KEYS = {
    "id",
    "model",
    "version",
    "status",
    "files",
    "output",
    "error",
    "metrics",
    "created_at",
    "started_at",
    "completed_at",
    "data_removed",
}


# ---------------------------------------------------------------------------------------------------------------------
# The errors. `request_id` is in every answer: in its header, in its message, or in both.

REQUEST_ID = "20261123061943001308SIHCnxzJ"
PAGE = "<!doctype html><html><head><title>Bad gateway</title></head><body>cloud</body></html>"


def envelope(message: str, code: str | None = "", **more: Any) -> dict[str, Any]:
    error = {"message": f"{message} (request id: {REQUEST_ID})", "type": "comet_api_error", "param": "", "code": code}
    return {"error": {key: value for key, value in error.items() if value is not None}, **more}


@dataclass(frozen=True)
class Row:
    """One kind of answer.

    :param fault: what the emulator does to a request; `None`: there is no server.
    :param poll: the error of a poll that gets it.
    :param create: the error of a create that gets it; `None`: a create never gets it.
    :param says: words of the server that every message has to pass on.
    :param accepted: predictions that exist after the create.
    :param has_request_id: whether the answer names the request.
    """

    name: str
    fault: Mapping[str, Any] | None
    poll: type[e.CometError]
    create: type[e.CometError] | None
    says: str = ""
    retry_after: float | None = None
    accepted: int = 0
    has_request_id: bool = True
    read_timeout: float = 5.0

    @property
    def status(self) -> int | None:
        return self.fault.get("status") if self.fault and self.has_request_id else None

    @property
    def passes(self) -> bool:
        """Whether a wait continues: it may pass, or the prediction is too young to be known."""
        return self.poll.retryable or self.poll is e.PredictionNotFoundError


def answer(status: int, body: Any = None, headers: Mapping[str, str] | None = None, **more: Any) -> dict[str, Any]:
    return {"status": status, "body": body, "headers": {"x-cometapi-request-id": REQUEST_ID, **(headers or {})}, **more}


RETRYABLE = {e.RateLimitedError, e.ServerError, e.TransportError}
AMBIGUOUS = e.AmbiguousSubmissionError
NO_CHANNEL = "no available channel for group default and model"
ERRORS = [
    Row("401", answer(401, envelope("Invalid token")), e.AuthenticationError, e.AuthenticationError, "Invalid token"),
    Row(
        "401-problem-json",
        answer(401, {"title": "Unauthenticated", "detail": "You did not pass a valid token", "status": 401}),
        e.AuthenticationError,
        e.AuthenticationError,
        "You did not pass a valid token",
    ),
    Row("403", answer(403, envelope("not allowed")), e.PermissionDeniedError, e.PermissionDeniedError, "not allowed"),
    Row(
        "403-quota",
        answer(403, envelope("user quota is not enough", "insufficient_user_quota")),
        e.PermissionDeniedError,
        e.BalanceExhaustedError,
        "user quota is not enough",
    ),
    Row(
        "403-token-quota",
        answer(403, envelope("token quota is not enough", "pre_consume_token_quota_failed")),
        e.PermissionDeniedError,
        e.BalanceExhaustedError,
        "token quota is not enough",
    ),
    Row("402", answer(402, envelope("pay")), e.BalanceExhaustedError, e.BalanceExhaustedError, "pay"),
    Row(
        "400", answer(400, envelope("model name is required")), e.BadRequestError, e.BadRequestError, "name is required"
    ),
    Row(
        "400-without-code",
        answer(400, envelope("has not been priced", None)),
        e.BadRequestError,
        e.BadRequestError,
        "has not been priced",
    ),
    Row("413", answer(413, "Payload Too Large"), e.BadRequestError, e.BadRequestError, "Payload Too Large"),
    Row("413-html", answer(413, PAGE), e.BadRequestError, e.BadRequestError, "'Bad gateway'"),
    Row(
        "422",
        answer(422, {"detail": [{"loc": ["body", "input", "prompt"], "msg": "Field required", "type": "missing"}]}),
        e.BadRequestError,
        e.BadRequestError,
        "Field required",
    ),
    Row("404", answer(404, {"detail": "not here"}), e.PredictionNotFoundError, e.ModelNotFoundError, "not here"),
    Row(
        "400-task_not_exist",
        answer(400, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
        e.PredictionNotFoundError,
        None,
        "task_not_exist",
    ),
    Row(
        "200-task_not_exist",
        answer(200, {"code": "task_not_exist", "message": "task_not_exist", "data": None}),
        e.PredictionNotFoundError,
        None,
        "task_not_exist",
    ),
    Row("200-without-task", answer(200, {"code": "success", "data": None}), e.PredictionNotFoundError, AMBIGUOUS),
    Row("405", answer(405, {"detail": "Method Not Allowed"}), e.WrongURLError, e.WrongURLError, "Method Not Allowed"),
    Row(
        "500-invalid_request",
        answer(500, envelope("field prompt is required", "invalid_request")),
        e.ServerError,
        e.BadRequestError,
        "field prompt is required",
    ),
    Row(
        "500-convert_request_failed",
        answer(500, envelope("not supported model for image generation", "convert_request_failed")),
        e.ServerError,
        e.BadRequestError,
        "not supported model",
    ),
    Row(
        "503-model_not_found",
        answer(503, envelope(NO_CHANNEL, "model_not_found")),
        e.ServerError,
        e.ModelNotFoundError,
        NO_CHANNEL,
    ),
    Row(
        "503-envelope", answer(503, envelope("overloaded", "get_channel_failed")), e.ServerError, e.ServerError, "overl"
    ),
    Row("503-html", answer(503, PAGE), e.ServerError, AMBIGUOUS, "'Bad gateway'"),
    Row("500-envelope", answer(500, envelope("lost the answer", None)), e.ServerError, AMBIGUOUS, "lost the answer"),
    Row(
        "500-envelope-other-code",
        answer(500, envelope("lost the answer", "do_request_failed")),
        e.ServerError,
        AMBIGUOUS,
        "lost the answer",
    ),
    Row("500-text", answer(500, "Internal Server Error"), e.ServerError, AMBIGUOUS, "Internal Server Error"),
    Row("502-html", answer(502, PAGE), e.ServerError, AMBIGUOUS, "'Bad gateway'"),
    Row("504", answer(504, "upstream request timeout"), e.ServerError, AMBIGUOUS, "upstream request timeout"),
    *(
        Row(str(status), answer(status, f"error code: {status}"), e.ServerError, AMBIGUOUS, f"error code: {status}")
        for status in range(520, 527)
    ),
    *(
        Row(
            f"{status}-not-connected",
            answer(status, f"error code: {status}", {"cf-ray": "8f1d2c3b4a596877-FRA"}),
            e.ServerError,
            e.ServerError if status in {521, 523, 525, 526} else AMBIGUOUS,
            f"error code: {status}",
        )
        for status in range(520, 527)
    ),
    Row("408", answer(408, "Request Timeout"), e.ServerError, AMBIGUOUS, "Request Timeout"),
    Row(
        "429-header",
        answer(429, envelope("slow down"), {"Retry-After": "17"}),
        e.RateLimitedError,
        e.RateLimitedError,
        "slow down",
        retry_after=17.0,
    ),
    Row(
        "429-body",
        answer(429, {"detail": "Request was throttled.", "status": 429, "retry_after": 5}),
        e.RateLimitedError,
        e.RateLimitedError,
        "Request was throttled.",
        retry_after=5.0,
    ),
    Row("301", answer(301, "", {"Location": "/somewhere"}), e.WrongURLError, e.WrongURLError),
    Row("200-html", answer(200, PAGE), e.WrongURLError, AMBIGUOUS, "'Bad gateway'"),
    Row("404-html", answer(404, PAGE), e.WrongURLError, e.WrongURLError, "'Bad gateway'"),
    Row("200-garbage", answer(200, "...not json"), e.ServerError, AMBIGUOUS, "not json"),
    Row("200-no-prediction", answer(200, {"hello": "world"}), e.ServerError, AMBIGUOUS, "hello"),
    Row("200-empty", answer(200, ""), e.ServerError, AMBIGUOUS),
    Row("201-html-accepted", answer(201, PAGE, accept=True), e.WrongURLError, AMBIGUOUS, accepted=1),
    Row(
        "request-id-in-message-only",
        answer(500, envelope("who knows"), {"x-cometapi-request-id": ""}),
        e.ServerError,
        AMBIGUOUS,
        "who knows",
    ),
    Row("dropped-before", {"drop": "before"}, e.TransportError, AMBIGUOUS, has_request_id=False),
    Row("dropped-after", {"drop": "after"}, e.TransportError, AMBIGUOUS, has_request_id=False, accepted=1),
    Row(
        "read-timeout",
        {"delay": 0.15, "status": 504},
        e.TransportError,
        AMBIGUOUS,
        has_request_id=False,
        read_timeout=0.05,
    ),
    Row("refused", None, e.TransportError, e.TransportError, has_request_id=False),
]


def rows(applies: Callable[[Row], bool]) -> pytest.MarkDecorator:
    """Only the rows that a test is about."""
    some = [row for row in ERRORS if applies(row)]
    return pytest.mark.parametrize("row", some, ids=[row.name for row in some], indirect=True)


@pytest.fixture(params=ERRORS, ids=lambda row: row.name)
def row(request: pytest.FixtureRequest) -> Row:
    one: Row = request.param
    return one


@pytest.fixture
def break_it(comet: Emulator, point_to: Callable[..., None], row: Row) -> Iterator[Callable[..., None]]:
    """Let the answers be those of the row from now on, or for the next `count` requests."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nowhere = f"http://127.0.0.1:{unused.getsockname()[1]}"

    def break_it(count: int | None = None) -> None:
        if row.fault is None:
            point_to(nowhere)
        else:
            point_to(comet.base_url, read_timeout=row.read_timeout)
            comet.fault(count=count, **row.fault)

    yield break_it
    comet.clear_faults()


def new_prediction(comet: Emulator, prompt: str = "a lighthouse", **outcome: Any) -> str:
    """A prediction that exists already; made without the package under test."""
    import requests

    if outcome:
        comet.next_outcome(**outcome)
    url = f"{comet.base_url}/replicate/v1/models/{SCHNELL}/predictions"
    made = requests.post(url, json={"input": {"prompt": prompt}}, headers={"Authorization": f"Bearer {KEY}"}, timeout=5)
    return str(made.json()["id"])


def check(error: BaseException, row: Row, expected: type[e.CometError], prediction_id: str | None = None) -> None:
    """Class, ids, retry flag and words of an error."""
    assert type(error) is expected
    assert error.status == row.status
    assert error.prediction_id == prediction_id
    assert (prediction_id or "") in str(error)
    assert error.request_id == (REQUEST_ID if row.has_request_id else None)
    assert (f"request id {REQUEST_ID}" in str(error)) == row.has_request_id
    assert str(error).count(REQUEST_ID) == row.has_request_id
    assert row.says in str(error)
    assert error.next_step
    assert str(error).endswith(error.next_step)


# (a) create


@rows(lambda row: row.create is not None)
def test_create_by_hook(row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock) -> None:
    """`create_prediction` raises the row's class, and sends again only what certainly was not accepted."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    assert row.create is not None
    break_it()
    with pytest.raises(e.CometError) as caught:
        CometReplicateHook().create_prediction(SCHNELL, {"prompt": "a lighthouse"})
    check(caught.value, row, row.create)
    assert caught.value.retryable == (row.create in RETRYABLE)
    if not caught.value.retryable:
        assert clock.sleeps == []
    elif row.retry_after is not None:
        assert caught.value.retry_after == row.retry_after
        assert min(clock.sleeps) >= row.retry_after
    else:
        assert 5 <= len(clock.sleeps) <= 20
    posts = [entry for entry in comet.ledger()["requests"] if entry["method"] == "POST"]
    assert len(posts) == (0 if row.fault is None else len(clock.sleeps) + 1)
    assert comet.ledger()["accepted"] == row.accepted


@rows(lambda row: row.create is not None)
def test_create_by_operator(
    row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock, runner: TaskRunner
) -> None:
    """The operator fails for good, although retries are left, unless a retry may help and can't pay twice."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    assert row.create is not None
    with dag():
        task = CreatePredictionOperator(task_id="create", model=SCHNELL, input={"prompt": "a lighthouse"}, retries=2)
    break_it()
    outcome = runner.run(task)
    cause = next(error for error in outcome.chain if isinstance(error, e.CometError))
    check(cause, row, row.create)
    assert outcome.message.startswith(str(cause))
    if row.create in RETRYABLE:
        assert (outcome.state, outcome.error) == ("up_for_retry", cause)
    else:
        assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowFailException")
    assert outcome.result is None
    assert comet.ledger()["accepted"] == row.accepted


@rows(lambda row: row.create in RETRYABLE and row.fault is not None)
def test_create_recovers(
    row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock, runner: TaskRunner
) -> None:
    """After one answer that proves that nothing was accepted, the same attempt succeeds and pays once."""
    from airflow_provider_comet.operators.prediction import CreatePredictionOperator

    with dag():
        task = CreatePredictionOperator(task_id="create", model=SCHNELL, input={"prompt": "a lighthouse"}, retries=2)
    break_it(count=1)
    outcome = runner.run(task)
    assert (outcome.state, outcome.error) == ("success", None)
    assert [made["id"] for made in comet.ledger()["creates"]] == [outcome.result]


# (b) the hook's polls


def test_get_by_hook(row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock) -> None:
    """`get_prediction` raises the row's class with both ids; what may pass is waited out for two minutes."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    prediction = new_prediction(comet)
    break_it()
    clock.on_sleep = lambda seconds: setattr(clock, "now", clock.now + 50)  # a few attempts show it
    with pytest.raises(e.CometError) as caught:
        CometReplicateHook().get_prediction(prediction)
    check(caught.value, row, row.poll, prediction)
    assert caught.value.retryable == (row.poll in RETRYABLE)
    assert caught.value.retry_after == row.retry_after
    assert bool(clock.sleeps) == caught.value.retryable
    assert all(seconds >= (row.retry_after or 0.0) for seconds in clock.sleeps)


def test_wait_by_hook(row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock) -> None:
    """`wait_for_prediction` raises the row's class at once, after the grace period, or a timeout that tells of it."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    prediction = new_prediction(comet)
    break_it()
    began = clock.time()
    with pytest.raises(e.CometError) as caught:
        CometReplicateHook().wait_for_prediction(prediction, timeout=TIMEOUT, poke_interval=290)
    check_wait(caught.value, row, prediction)
    waited = clock.time() - began
    if row.poll.retryable:
        assert waited == pytest.approx(TIMEOUT, abs=1)
    elif row.poll is e.PredictionNotFoundError:
        assert 60 <= waited < TIMEOUT
    else:
        assert waited == 0


def check_wait(error: BaseException, row: Row, prediction: str) -> None:
    """Check how a wait ends if the row's answers never stop."""
    if not row.poll.retryable:
        check(error, row, row.poll, prediction)
        return
    assert type(error) is e.PredictionTimeoutError
    assert (error.prediction_id, error.retryable) == (prediction, False)
    assert error.request_id == (REQUEST_ID if row.has_request_id else None)
    assert row.poll.summary in str(error)
    check_words(str(error), row, prediction)
    assert re.search(r"\b6[01]\d s after", str(error))  # the server may have asked to wait beyond it


def check_words(message: str, row: Row, prediction: str) -> None:
    """What everybody has to be told who waited for a prediction."""
    assert message.startswith(f"Prediction {prediction}: ")
    assert (REQUEST_ID in message) == row.has_request_id
    assert row.says in message


# (c), (d) the sensor


def sensor(prediction: str, mode: str, **options: Any) -> Any:
    from airflow_provider_comet.sensors.prediction import PredictionSensor

    options = {"timeout": TIMEOUT, "poke_interval": 290, "retries": 2, **MODES[mode], **options}
    with dag():
        return PredictionSensor(task_id="wait", prediction_id=prediction, **options)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("soft_fail", [False, True], ids=["", "soft_fail"])
def test_wait_by_sensor(
    row: Row,
    break_it: Callable[..., None],
    comet: Emulator,
    clock: Clock,
    runner: TaskRunner,
    mode: str,
    soft_fail: bool,
) -> None:
    """Facts and timeouts end a wait for good (or skip it), trouble in reaching the API is retried; in every mode."""
    prediction = new_prediction(comet)
    break_it()
    outcome = run_sensor(runner, sensor(prediction, mode, soft_fail=soft_fail), clock)
    check_outcome(outcome, row, prediction, soft_fail)
    assert comet.ledger()["accepted"] == 1
    assert [entry["method"] for entry in comet.ledger()["requests"]].count("POST") == 1


def check_outcome(outcome: Outcome, row: Row, prediction: str, soft_fail: bool) -> None:
    cause = next(error for error in outcome.chain if isinstance(error, e.CometError))
    check_wait(cause, row, prediction)
    check_words(outcome.message, row, prediction)
    assert outcome.result is None
    kind = type(outcome.error).__name__
    if not row.passes:
        assert (outcome.state, outcome.error) == ("up_for_retry", cause)
    elif soft_fail:
        assert (outcome.state, kind) == ("skipped", "AirflowSkipException")
    elif row.poll.retryable:
        assert (outcome.state, kind) == ("failed", "AirflowSensorTimeout")
    else:
        assert (outcome.state, kind) == ("failed", "AirflowFailException")


@rows(lambda row: row.passes and row.fault is not None)
@pytest.mark.parametrize("mode", MODES)
def test_sensor_recovers(
    row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock, runner: TaskRunner, mode: str
) -> None:
    """One failed poll does not end a wait if it may pass: the next poll's result is the task's."""
    prediction = new_prediction(comet)
    break_it(count=1)
    outcome = run_sensor(runner, sensor(prediction, mode), clock)
    assert (outcome.state, outcome.error) == ("success", None)
    assert outcome.result["id"] == prediction
    polls = [entry for entry in comet.ledger()["requests"] if entry["method"] == "GET"]
    assert len(polls) == 2


@pytest.mark.parametrize("mode", MODES)
def test_unknown_id_within_grace(comet: Emulator, clock: Clock, runner: TaskRunner, mode: str) -> None:
    """A prediction that becomes known within the first minute is waited for, by the default schedule too."""
    prediction = new_prediction(comet)
    # In reschedule mode there is a poll a minute, so only the first may fail.
    comet.fault(count=1 if mode == "reschedule" else 3, **answer(404, {"detail": "not here"}))
    outcome = run_sensor(runner, sensor(prediction, mode, poke_interval=None), clock)
    assert (outcome.state, outcome.error) == ("success", None)


# (e) the trigger


def trigger(prediction: str, clock: Clock, **options: Any) -> Any:
    from airflow_provider_comet.triggers.prediction import PredictionTrigger

    now = clock.time()
    options = {"started_at": now, "deadline": now + TIMEOUT, "poke_interval": 290, **options}
    return PredictionTrigger([prediction], "cometapi_default", **options)


def test_wait_by_trigger(row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock) -> None:
    """The trigger's one event tells the worker the same class, ids, retry flag and words as the hook raises."""
    prediction = new_prediction(comet)
    break_it()
    error = read_event(event_of(trigger(prediction, clock))).outcomes[prediction]
    assert isinstance(error, e.CometError)
    check_wait(error, row, prediction)


@rows(lambda row: row.poll is e.PredictionNotFoundError)
def test_trigger_after_grace(row: Row, break_it: Callable[..., None], comet: Emulator, clock: Clock) -> None:
    """A trigger that takes an old wait over polls an unknown id once more, an interval later; then the 404 is final."""
    prediction = new_prediction(comet)
    break_it()
    event = event_of(trigger(prediction, clock, started_at=clock.time() - 61))
    assert len(clock.sleeps) == 2  # nobody has polled it before, so the first poll is spread
    assert clock.sleeps[1] >= 200
    error = read_event(event).outcomes[prediction]
    assert isinstance(error, e.CometError)
    check(error, row, e.PredictionNotFoundError, prediction)


# ---------------------------------------------------------------------------------------------------------------------
# How predictions end.


@dataclass(frozen=True)
class End:
    """One way for a prediction to end.

    :param pinned: what its query shows in the end.
    :param error: what a wait makes of it; `None`: a result.
    :param output: the result's output; `...`: whatever the emulator delivers.
    """

    name: str
    pinned: Mapping[str, Any]
    error: type[e.CometError] | None = None
    says: str = ""
    output: Any = ...
    allow_empty: bool = False
    prompt: str = "a lighthouse"


DATA_URI = "data:image/png;base64," + "A" * 64
ENDS = [
    End("succeeded", {"status": "succeeded"}),
    End("succeeded-one-url", {"status": "succeeded", "output": "https://files.example/1.png"}, output="https://files.example/1.png"),
    End("succeeded-text", {"status": "succeeded", "output": ["Here", " it is"]}, output=["Here", " it is"]),
    End("succeeded-large", {"status": "succeeded", "output": ["word " * 2000]}, output=["word " * 2000]),
    End("failed", {"status": "failed", "error": "Prediction failed: E1001"}, e.PredictionFailedError, "E1001"),
    End("failed-nsfw", {}, e.PredictionRefusedError, "NSFW content detected", prompt="something NSFW"),
    End("canceled", {"status": "canceled"}, e.PredictionCanceledError, "canceled"),
    End("aborted", {"status": "aborted"}, e.PredictionAbortedError, "aborted"),
    End("removed", {"status": "succeeded", "data_removed": True}, e.PredictionExpiredError, "removed"),
    End(
        "removed-allow_empty",
        {"status": "succeeded", "data_removed": True},
        e.PredictionExpiredError,
        "removed",
        allow_empty=True,
    ),
    End("empty-list", {"status": "succeeded", "output": []}, e.EmptyOutputError, "without output"),
    End("empty-text", {"status": "succeeded", "output": ""}, e.EmptyOutputError, "without output"),
    End("empty-list-allow_empty", {"status": "succeeded", "output": []}, output=[], allow_empty=True),
]  # fmt: skip
# In the envelope a success that carries no output is not believed at once, so null is a flat body's business.
NULL_OUTPUT = [
    End("empty-null", {"status": "succeeded", "output": None}, e.EmptyOutputError, "without output"),
    End("empty-null-allow_empty", {"status": "succeeded", "output": None}, output=None, allow_empty=True),
]


@pytest.fixture(scope="module")
def wrapping_comet() -> Iterator[Emulator]:
    with Emulator(duration=0, api_key=KEY, wire="wrapped") as emulator:
        yield emulator


@pytest.fixture(params=["flat", "wrapped"])
def either_comet(request: pytest.FixtureRequest, point_to: Callable[..., None]) -> Iterator[Emulator]:
    """An emulator of either wire shape."""
    name = "shared_comet" if request.param == "flat" else "wrapping_comet"
    emulator: Emulator = request.getfixturevalue(name)
    emulator.reset()
    point_to(emulator.base_url)
    yield emulator
    emulator.reset()


@pytest.fixture(params=[*ENDS, *NULL_OUTPUT], ids=lambda end: end.name)
def end(request: pytest.FixtureRequest) -> End:
    one: End = request.param
    return one


def unfinished(comet: Emulator, clock: Clock, end: End, status: str = "processing") -> str:
    """A prediction that runs at the first poll and ends before the second."""
    prediction = new_prediction(comet, end.prompt, status=status)
    final = dict(end.pinned) or {"status": "failed", "error": "NSFW content detected. Try a different prompt."}

    def finish(seconds: float) -> None:
        comet.set_prediction(prediction, **final)

    clock.on_sleep = finish
    return prediction


def finished(comet: Emulator, end: End) -> str:
    return new_prediction(comet, end.prompt, **end.pinned)


def check_summary(summary: dict[str, Any], end: End, prediction: str) -> None:
    assert set(summary) == KEYS
    assert (summary["id"], summary["status"], summary["error"]) == (prediction, "succeeded", None)
    assert summary["model"] == SCHNELL
    assert isinstance(summary["files"], list)
    if end.output is ...:
        assert summary["output"] == summary["files"] != []
    else:
        assert summary["output"] == end.output


def test_end_by_hook(end: End, either_comet: Emulator, clock: Clock) -> None:
    """`wait_for_prediction` returns a success and raises a class of its own for each other end."""
    from airflow_provider_comet.hooks.comet_replicate import CometReplicateHook

    prediction = unfinished(either_comet, clock, end)
    hook = CometReplicateHook()
    if end.error is None:
        got = hook.wait_for_prediction(prediction, allow_empty=end.allow_empty)
        check_summary(got.summary(), end, prediction)
    else:
        with pytest.raises(e.PredictionError) as caught:
            hook.wait_for_prediction(prediction, allow_empty=end.allow_empty)
        check_end(caught.value, end, prediction)
    assert len(clock.sleeps) == 1
    assert hook.get_prediction(prediction).is_terminal


def check_end(error: BaseException | None, end: End, prediction: str) -> None:
    assert type(error) is end.error
    assert (error.prediction_id, error.retryable) == (prediction, False)
    assert str(error).startswith(f"Prediction {prediction}: ")
    assert end.says in str(error)
    assert str(error).endswith(error.next_step)
    assert error.next_step


@pytest.mark.parametrize("soft_fail", [False, True], ids=["", "soft_fail"])
@pytest.mark.parametrize("when", ["at-once", "later"])
def test_end_by_sensor(
    end: End, either_comet: Emulator, clock: Clock, runner: TaskRunner, when: str, soft_fail: bool
) -> None:
    """Every mode comes to the same state, error and XCom, whether the first poll sees the end or a later poll."""
    results = {}
    for mode in MODES:
        prediction = finished(either_comet, end) if when == "at-once" else unfinished(either_comet, clock, end)
        task = sensor(prediction, mode, soft_fail=soft_fail, allow_empty=end.allow_empty)
        outcome = run_sensor(runner, task, clock)
        kind = type(outcome.error).__name__
        if end.error is None:
            assert (outcome.state, outcome.error) == ("success", None)
            check_summary(outcome.result, end, prediction)
        elif soft_fail:
            assert (outcome.state, kind) == ("skipped", "AirflowSkipException")
        else:
            assert (outcome.state, kind) == ("failed", "AirflowFailException")
        if end.error is not None:
            check_end(next(error for error in outcome.chain if isinstance(error, e.CometError)), end, prediction)
            assert outcome.message == str(outcome.chain[1])
            assert outcome.result is None
        result = outcome.result and {
            key: value
            for key, value in outcome.result.items()
            if not key.endswith("_at") and key not in {"id", "files", "output", "metrics"}
        }
        results[mode] = (outcome.state, outcome.message.replace(prediction, "ID"), result)
    assert len({str(one) for one in results.values()}) == 1


def test_end_in_every_mode_is_the_same_xcom(either_comet: Emulator, clock: Clock, runner: TaskRunner) -> None:
    """The XCom of one and the same prediction is equal in all modes, resumed or not."""
    prediction = new_prediction(either_comet)
    values = []
    either_comet.set_prediction(prediction, status="succeeded")
    running = {"id": prediction, "status": "processing"}
    for is_running in (True, False):
        for mode in MODES:
            if is_running:
                either_comet.fault(method="GET", status=200, body=json.dumps(running), count=1)
            values.append(run_sensor(runner, sensor(prediction, mode), clock).result)
    assert set(values[0]) == KEYS
    assert all(value == values[0] for value in values)


def test_end_by_trigger(end: End, either_comet: Emulator, clock: Clock) -> None:
    """The event tells the worker how it ended, and carries the result unless that is large."""
    prediction = unfinished(either_comet, clock, end)
    result = read_event(event_of(trigger(prediction, clock)))
    if end.name == "succeeded-large":
        assert (result.outcomes, result.not_carried) == ({}, [prediction])
        return
    summary = result.outcomes[prediction]
    assert isinstance(summary, dict)
    if end.error is None:
        check_summary(judge(summary, allow_empty=end.allow_empty), end, prediction)
    else:
        with pytest.raises(end.error) as caught:
            judge(summary, allow_empty=end.allow_empty)
        check_end(caught.value, end, prediction)


@pytest.mark.parametrize("mode", MODES)
def test_unknown_status_then_succeeded(
    either_comet: Emulator, clock: Clock, runner: TaskRunner, mode: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """A status that nobody knows counts as running, and each process that sees it warns of it once."""
    prediction = unfinished(either_comet, clock, ENDS[0], status="warming_up")
    outcome = run_sensor(runner, sensor(prediction, mode), clock)
    assert (outcome.state, outcome.error) == ("success", None)
    check_summary(outcome.result, ENDS[0], prediction)
    said = capfd.readouterr()
    warned = (said.out + said.err).count("is unknown here; it counts as still running")
    assert warned == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("status", ["starting", "processing", "warming_up"])
def test_never_ends(status: str, either_comet: Emulator, clock: Clock, runner: TaskRunner, mode: str) -> None:
    """A prediction that never ends times the wait out, with its id, its last status and what to do."""
    prediction = new_prediction(either_comet, status=status)
    outcome = run_sensor(runner, sensor(prediction, mode), clock)
    assert (outcome.state, type(outcome.error).__name__) == ("failed", "AirflowSensorTimeout")
    (timeout,) = [error for error in outcome.chain if isinstance(error, e.CometError)]
    assert type(timeout) is e.PredictionTimeoutError
    assert outcome.message.startswith(f"Prediction {prediction}: ")
    assert "last status" in outcome.message
    assert outcome.message.endswith(e.PredictionTimeoutError.next_step)
