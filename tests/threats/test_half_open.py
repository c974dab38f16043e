"""5,000 half-open connections, TCP and TLS: whoever is honest is served as if they were not there.

Here they are counted; how long an honest client waits beside them is measured by
``python -m tests.bench.half_open``.
"""

import asyncio

from tests.patience import until
from tests.threats.half_open import HALF_A_REQUEST, half_a_hello, open_half, room_for
from tests.turn.live import UDP, port_of, relay
from tests.turn.secure import connected, everywhere
from turn.codec.registry import MessageClass, Method
from turn.routes import Transport

EACH = 2500


async def test_who_is_honest_is_served_beside_them(tmp_path):
    room_for(4 * EACH + 500)  # both ends are in this process
    async with relay(**everywhere(tmp_path), first_request_timeout=60) as service:
        strangers = service._listeners._stream_shared.strangers
        held = await open_half(port_of(service, "tcp"), EACH, HALF_A_REQUEST, 21)
        held += await open_half(port_of(service, "tls"), EACH, half_a_hello(), 22)
        await until(lambda: strangers.open == 2 * EACH)
        for transport in Transport:
            async with connected(service, transport) as client:
                reply = await client.request(Method.ALLOCATE, UDP)
                assert reply.message_class == MessageClass.SUCCESS, transport
                # Who proved himself is no stranger any more.
                assert strangers.open == 2 * EACH
        for sock in held:
            sock.close()
        await until(lambda: strangers.open == 0)
        await asyncio.sleep(0)


async def test_they_are_cut_off_at_their_time(tmp_path):
    async with relay(**everywhere(tmp_path), first_request_timeout=1) as service:
        strangers = service._listeners._stream_shared.strangers
        held = await open_half(port_of(service, "tcp"), 100, HALF_A_REQUEST, 21)
        held += await open_half(port_of(service, "tls"), 100, half_a_hello(), 22)
        assert strangers.open > 0
        await until(lambda: strangers.open == 0)
        for sock in held:
            assert sock.recv(1) == b""
            sock.close()
