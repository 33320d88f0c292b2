"""accepted = delivered + refused + expired + filtered + dropped + damaged + stored, at every step."""

import asyncio
import logging
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.forward.ledger import Lives


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("bridge.forward.keeper.delay", lambda attempt, luck: 0.0)
    # A period of a millisecond is over as soon as there is nothing more to read, whatever the time.
    monkeypatch.setattr("bridge.policy.sieve.GRACE_S", -1.0)
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@given(st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_happens_every_message_is_in_one_account(luck):
    asyncio.run(Lives(luck).run(25))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_in_a_thousand_lives_every_message_is_in_one_account():
    for seed in range(1000):
        asyncio.run(Lives(Random(seed)).run(40))
