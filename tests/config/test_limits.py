"""The limits as the configuration says them, and as the README does."""

import re
from pathlib import Path

import pytest

from bridge.broker.limits import Limits
from bridge.config import loads
from bridge.config.limits import DeviceLimits, HouseLimits

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
SECTION = README.partition("### Limits")[2].partition("\n### ")[0]
ROWS = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", SECTION, re.M)


def test_the_readme_names_every_limit():
    assert {key for key, _ in ROWS} == set(HouseLimits.model_fields)


@pytest.mark.parametrize(("key", "text"), ROWS)
def test_the_readme_has_the_default_of_each_limit(key, text):
    """Whoever writes the default out changes nothing."""
    assert loads(f"version: 1\nlimits: {{{key}: {text}}}").broker_limits == Limits()


def test_those_of_a_listener_go_before_those_of_the_whole():
    config = loads(
        "version: 1\nlimits: {in_flight: 5, sessions: 7}\n"
        "listeners: [{mqtt: 127.0.0.1:1, limits: {in_flight: 6, maximum_qos: 1}}, {mqtt: 127.0.0.1:2}]"
    )
    first, second = (config.limits_of(listener) for listener in config.listeners)
    assert (first.window_max, first.maximum_qos, first.sessions_max) == (6, 1, 7)
    assert (second.window_max, second.maximum_qos, second.sessions_max) == (5, 2, 7)
    assert config.broker_limits == second


def test_what_only_the_whole_can_bound_is_no_key_of_a_listener():
    assert set(HouseLimits.model_fields) - set(DeviceLimits.model_fields) == {
        "sessions", "retained_messages", "retained_bytes", "failed_logins",
    }  # fmt: skip
