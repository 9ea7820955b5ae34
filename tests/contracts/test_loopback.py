"""The stand-ins' server itself: nothing of it outlives it."""

import asyncio
import gc
import socket
import warnings

import pytest
from starlette.applications import Starlette

from darkroom.twin.loopback import loopback

TURNS = 8
"""More than asyncio takes from accepting a connection to its protocol."""


@pytest.mark.parametrize("turns", range(TURNS))
async def test_whoever_is_let_in_while_a_stand_in_leaves_is_closed_with_it(turns: int) -> None:
    """A server closed in that moment left a half-made connection, and some other test was blamed for it."""
    async with loopback(Starlette()) as url:
        guest = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
        for _ in range(turns):
            await asyncio.sleep(0)
    guest.close()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(one.message) for one in said if one.category is ResourceWarning] == []
