from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_comet.emulator.faults import Fault, Faults


def test_fault_with_a_count() -> None:
    """A fault applies to as many requests as its count says."""
    faults = Faults()
    faults.add(Fault(status=503, count=2))
    assert [faults.take("GET", "/a") is not None for _ in range(3)] == [True, True, False]
    assert len(faults) == 0


def test_fault_without_count_stays() -> None:
    """A fault whose count is None applies until it is cleared."""
    faults = Faults()
    faults.add(Fault.from_fields({"status": 503, "count": None}))
    assert all(faults.take("GET", "/a") for _ in range(50))
    faults.clear()
    assert faults.take("GET", "/a") is None


def test_first_match_wins() -> None:
    """The first fault that matches applies, in the order in which they were added; the others stay."""
    faults = Faults()
    for status, method in ((500, "POST"), (502, None), (504, "GET")):
        faults.add(Fault(status=status, method=method))
    taken = [faults.take("GET", "/a") for _ in range(3)]
    assert [fault and fault.status for fault in taken] == [502, 504, None]
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("fields", "method", "path", "matches"),
    [
        ({}, "GET", "/x", True),
        ({"method": "get"}, "GET", "/x", True),
        ({"method": "GET"}, "POST", "/x", False),
        ({"path": "/predictions/"}, "GET", "/replicate/v1/predictions/1", True),
        ({"path": "/predictions/"}, "POST", "/replicate/v1/models/a/b/predictions", False),
        ({"method": None, "path": None}, "GET", "/x", True),
        ({"status": None, "cut": 0.5}, "GET", "/delivery/1/0.webp", True),
        ({"status": None, "cut": 0.5}, "POST", "/delivery/1/0.webp", False),
        ({"status": None, "slow": 10}, "GET", "/replicate/v1/predictions/1", False),
    ],
)
def test_matching(fields: dict[str, Any], method: str, path: str, matches: bool) -> None:
    """A fault matches by method (in any case) and a part of the path; without them it matches every request.

    Damage matches only deliveries.
    """
    assert Fault.from_fields({"status": 503, **fields}).matches(method, path) is matches


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"count": 3},
        {"status": 99},
        {"status": 600},
        {"status": "503"},
        {"status": 503, "drop": "before"},
        {"drop": "sometimes"},
        {"status": 503, "count": 0},
        {"delay": -1},
        {"delay": "long"},
        {"delay": 1, "body": "x"},
        {"drop": "after", "accept": True},
        {"status": 503, "headers": {"retry-after": 3}},
        {"status": 503, "headers": 3},
        {"status": 503, "path": 3},
        {"status": 503, "methods": "GET"},
        {"cut": 1},
        {"cut": -0.1},
        {"cut": "half"},
        {"cut": 0.5, "status": 503},
        {"cut": 0.5, "drop": "before"},
        {"content_type": 3},
        {"content_length": -1},
        {"content_length": 1.5},
        {"slow": 0},
        {"slow": float("nan")},
    ],
)
def test_invalid_faults_are_refused(fields: dict[str, Any]) -> None:
    """A fault that would do nothing, or fail later, is refused when it is added."""
    with pytest.raises(ValueError, match=r".+"):
        Fault.from_fields(fields)


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        ("<html>no</html>", "text/html", b"<html>no</html>"),
        ("upstream busy", "text/plain", b"upstream busy"),
        ({"detail": "no"}, "application/json", b'{"detail": "no"}'),
        ([], "application/json", b"[]"),
        (None, "text/plain", b""),
    ],
)
def test_content_type_follows_the_body(body: object, content_type: str, expected: bytes) -> None:
    """The content type follows from the body: JSON, HTML or plain text."""
    content, headers = Fault(status=503, body=body).answer("R1")
    assert content == expected
    assert headers == {"content-type": content_type, "x-cometapi-request-id": "R1"}


def test_headers_of_a_fault_replace_the_default() -> None:
    """Headers of a fault replace the default headers, in upper or lower case."""
    fault = Fault(status=429, body={}, headers={"Content-Type": "application/problem+json", "Retry-After": "2"})
    assert fault.answer("R1")[1] == {
        "content-type": "application/problem+json",
        "x-cometapi-request-id": "R1",
        "retry-after": "2",
    }


def test_request_id_is_filled_in() -> None:
    """The placeholder is replaced by the request id of the answer, in bodies and headers."""
    fault = Fault(
        status=500, body={"error": {"message": "no (request id: {request_id})"}}, headers={"x-id": "{request_id}"}
    )
    body, headers = fault.answer("R1")
    assert body == b'{"error": {"message": "no (request id: R1)"}}'
    assert headers["x-id"] == "R1"
