"""Servers that several tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.servers import RabbitMQ
from tests.sinks.secure import Secure

# How long one example takes says more about the machine than about us: what has to be fast is timed by name.
settings.register_profile("edgespool", deadline=None)
settings.load_profile("edgespool")


@pytest.fixture(scope="session")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """A RabbitMQ that stays up; a test that must stop one starts its own."""
    server = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """One with TLS, which takes certificates for names."""
    made = Secure(tmp_path_factory.mktemp("secure"))
    made.server.start()
    yield made
    made.server.stop()
