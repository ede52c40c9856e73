"""``client/common.py``: the reason of a failure, in words that hold no key."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_comet.api.config import Config
from airflow_provider_comet.client.common import innermost, root_cause, uses_no_proxy
from tests.unit.client.conftest import KEY


def chained(*errors: BaseException) -> BaseException:
    """Return the first error, caused by the second and so on."""
    for outer, inner in itertools.pairwise(errors):
        outer.__cause__ = inner
    return errors[0]


def test_the_innermost_reason_with_words_is_named() -> None:
    """Outer exceptions repeat URLs and addresses; inner exceptions without a text say nothing."""
    error = chained(RuntimeError("pool at 0x7f"), OSError("connection refused"), TimeoutError())
    assert innermost(error, None) == "OSError: connection refused"


def test_an_exception_without_words_is_named_by_its_class() -> None:
    """If no exception has a text, the class of the outermost is the reason."""
    assert innermost(chained(TimeoutError(), OSError()), None) == "TimeoutError: "


def test_an_exception_from_before_the_call_is_no_reason() -> None:
    """An exception that was being handled when the call began is not the reason, and neither are its causes."""
    outside = chained(LookupError("nothing to do with it"), ValueError("nor this"))
    error = OSError("connection refused")
    error.__context__ = outside
    assert innermost(error, outside) == "OSError: connection refused"


def test_the_root_cause_names_the_host_and_no_key() -> None:
    """The base URL stands before the reason, and a key in the reason is replaced."""
    error = OSError(f"bad header {KEY}")
    assert root_cause(error, Config(KEY, "https://comet.invalid"), None) == (
        "https://comet.invalid: OSError: bad header ***"
    )


@pytest.mark.parametrize(
    ("url", "direct"),
    [
        ("http://127.0.0.1:8000/x", True),
        ("HTTP://LOCALHOST/x", True),
        ("http://[::1]:1", True),
        ("http://127.9.9.9", True),
        ("https://127.0.0.1:8000", False),
        ("https://api.cometapi.com/v1", False),
        ("http://localhost.example", False),
        ("http://10.0.0.1", False),
        ("", False),
    ],
)
def test_only_plain_http_on_this_machine_uses_no_proxy(url: str, direct: bool) -> None:
    """Everything else, https on this machine included, goes through the proxy of the environment."""
    assert uses_no_proxy(url) is direct
