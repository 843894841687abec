"""Every test of the contract runs over every poller, but for those that name theirs."""

from __future__ import annotations

import pytest

from readers import POLLERS


@pytest.fixture(params=POLLERS)
def poller(request) -> str:
    """Each poller's name."""
    return request.param
