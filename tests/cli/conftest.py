"""The gateway that the tests of one command talk to."""

import pytest

from tests.cli.gateway import Gateway


@pytest.fixture
def gateway(tmp_path):
    gateway = Gateway(tmp_path / "state")
    gateway.start()
    yield gateway
    gateway.kill()
