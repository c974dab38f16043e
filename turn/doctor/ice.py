"""The whole of it, by somebody else's code: two ICE agents (aioice) that meet through the relay."""

import asyncio
import time

from aioice import Candidate, Connection, TransportPolicy

from turn.doctor.client import Forged, NotStun, Refused, Relayed, Silent, TurnClient
from turn.doctor.report import Section
from turn.doctor.target import Credentials, Target
from turn.routes import Transport

PATIENCE = 10.0
FORBIDDEN = 403


async def may_meet(section: Section, client: TurnClient, relayed: Relayed) -> bool:
    """Whether the relay has its own clients be peers of each other; tells where it does not."""
    try:
        await client.permit(relayed.address.host)
    except Refused as refusal:
        if refusal.code != FORBIDDEN:
            return True
        section.warn(
            "ice",
            "two clients that both need the relay do not meet: it does not relay to its own "
            f"relayed addresses ({refusal})",
            "where a media server is everybody's peer, it is meant so (turn.only_allowed_peers); "
            "else take that back (coturn: allowed-peer-ip)",
        )
        return False
    except (Silent, NotStun, Forged, OSError):
        return True  # the agents find out what is the matter
    return True


async def meet(section: Section, target: Target, host: str, shown: Credentials) -> None:
    """Connect two agents by relayed candidates alone, and send something each way."""
    began = time.monotonic()
    agents = [_agent(target, host, shown, controlling=True), _agent(target, host, shown)]
    try:
        async with asyncio.timeout(PATIENCE):
            await _introduce(*agents)
            await asyncio.gather(*(agent.connect() for agent in agents))
            await agents[0].send(b"there")
            await agents[1].recv()
            await agents[1].send(b"and back")
            await agents[0].recv()
    except (TimeoutError, ConnectionError, OSError) as error:
        section.fail(
            "ice",
            f"two ICE agents (aioice) do not meet through the relay: {str(error) or 'no answer'}",
            "the findings above say why; if all of them are well, look at the server's log",
        )
    else:
        seconds = time.monotonic() - began
        says = f"two ICE agents (aioice) meet through the relay in {seconds:.1f} s"
        section.ok("ice", says, seconds)
    finally:
        await asyncio.gather(*(agent.close() for agent in agents), return_exceptions=True)


def _agent(
    target: Target, host: str, shown: Credentials, *, controlling: bool = False
) -> Connection:
    return Connection(
        ice_controlling=controlling,
        turn_server=(target.host if target.transport is Transport.TLS else host, target.port),
        turn_username=shown.username,
        turn_password=shown.password,
        turn_transport="tcp" if target.transport.is_stream else "udp",
        turn_ssl=target.transport is Transport.TLS,
        use_ipv6=":" in host,
        use_ipv4=":" not in host,
        transport_policy=TransportPolicy.RELAY,
    )


async def _introduce(one: Connection, other: Connection) -> None:
    for agent in (one, other):
        await agent.gather_candidates()
    for here, there in ((one, other), (other, one)):
        for candidate in here.local_candidates:
            await there.add_remote_candidate(Candidate.from_sdp(candidate.to_sdp()))
        await there.add_remote_candidate(None)
        there.remote_username, there.remote_password = here.local_username, here.local_password
