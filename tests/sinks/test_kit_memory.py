"""The sink that the others are measured against keeps the promises itself."""

import pytest

from bridge.sinks.kit import CHECKS
from tests.sinks.rigs import MemoryRig


@pytest.mark.parametrize("number", CHECKS)
async def test_promise(number: int) -> None:
    await CHECKS[number](MemoryRig())
