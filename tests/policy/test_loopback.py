"""What counts as reachable only from this machine, and what does not."""

import pytest

from bridge.policy.loopback import is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_is_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "127.evil.example", "localhost.example", "1127.0.0.1"]
)
def test_nothing_else_is(host):
    assert not is_loopback(host)
