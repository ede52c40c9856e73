"""Whatever a server answers, what leaves for Airflow passes everything that carries it: Airflow's own code says so."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from airflow.sdk.execution_time.comms import SetXCom, _new_encoder
from airflow.sdk.serde import deserialize, serialize
from airflow.serialization.serialized_objects import BaseSerialization
from airflow.triggers.base import TriggerEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_comet.api import protocol
from airflow_provider_comet.api.errors import CometError
from airflow_provider_comet.api.outcome import judge, judge_all
from airflow_provider_comet.api.prediction import Prediction
from airflow_provider_comet.api.response import Response
from airflow_provider_comet.polling.events import make_event, read_event

ID = "abc"
HOSTILE = [
    "a\0b",
    "\ud83d",
    "\u202e\x1b[31m",
    "https://files.example/a b\0.png",
    "data:image/png;base64,AAAA",
    "x" * 9000,
]
RESERVED = [{"__classname__": "x", "__version__": 1, "__data__": {}}, {"__type": "x.Y", "__var": {}}, {"__id__": 1}]


def nested(levels: int) -> str:
    return "[" * levels + "1" + "]" * levels


TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(HOSTILE)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT | st.sampled_from(RESERVED),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=10,
)
FIELDS = {
    **dict.fromkeys(("id", "model", "version", "output", "error"), TEXT | JSON),
    **dict.fromkeys(("metrics", "logs", "created_at", "completed_at"), TEXT | JSON),
}
STATUS = st.sampled_from(["succeeded", "failed", "canceled", "aborted"]) | TEXT
FLAT = st.fixed_dictionaries({"status": STATUS}, optional=FIELDS)
WRAPPED = st.fixed_dictionaries({
    "code": st.just("success"),
    "data": st.fixed_dictionaries({"task_id": TEXT, "status": STATUS, "fail_reason": JSON, "data": FLAT | JSON}),
})
ERROR = st.fixed_dictionaries({"error": st.fixed_dictionaries({"message": TEXT | JSON, "code": TEXT | JSON})})
BODY = st.builds(
    lambda answer, deep: json.dumps(answer).replace('"deep"', nested(deep)),
    FLAT | WRAPPED | ERROR | JSON | st.just({"status": "succeeded", "output": "deep"}),
    st.integers(1, 3000),
)
HEADERS = st.dictionaries(
    st.sampled_from(["date", "retry-after", "content-type", "x-cometapi-request-id"]), TEXT, max_size=4
)


def carry(value: Any) -> Any:
    """Send a value the way that Airflow does, from a trigger or a task to its database and to the next task."""
    frame = _new_encoder().encode({"event": value})
    received = msgspec.msgpack.decode(frame)["event"]
    for_postgres = json.dumps(received, allow_nan=False, ensure_ascii=False)
    for_postgres.encode()
    assert "\\u0000" not in for_postgres.replace("\\\\", "")
    stored = json.loads(json.dumps(serialize({"event": received}), allow_nan=False))
    assert deserialize(stored)["event"] == received
    assert BaseSerialization.deserialize(BaseSerialization.serialize(received)) == received
    xcom = SetXCom(key="k", value=serialize(received), dag_id="d", run_id="r", task_id="t")
    return msgspec.json.decode(msgspec.json.encode(xcom.model_dump()))["value"]


def poll(status: int, headers: dict[str, str], body: str) -> Prediction | CometError:
    """What a poll with this answer comes to."""
    response = Response.received(status, headers, body.encode("utf-8", "surrogatepass"), "sk-secret-key")
    try:
        return protocol.read_prediction(protocol.get_prediction(ID), response)
    except CometError as error:
        return error


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from([200, 200, 200, 400, 404, 429, 500, 503]), HEADERS, BODY)
def test_what_leaves_can_be_carried(status: int, headers: dict[str, str], body: str) -> None:
    """The trigger's event, the sensor's XCom and the texts of errors pass Airflow's encoders, whatever was answered."""
    outcome = poll(status, headers, body)
    event = TriggerEvent(make_event({ID: outcome}))
    carried = carry(event.payload)
    assert carried == event.payload
    result = read_event(carried)
    for known in [*result.outcomes.values()] or [outcome]:
        assert type(known) is type(outcome) or isinstance(known, dict)
        summaries, errors = judge_all({ID: known}, allow_empty=True)
        carry(summaries)
        carry([str(error) for error in errors])
        carry([error.to_dict() for error in errors])
    if isinstance(outcome, Prediction) and outcome.succeeded:
        assert carry(judge(outcome, allow_empty=True)) == judge(outcome, allow_empty=True)
