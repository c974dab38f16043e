"""The Python client: a back end as a peer, over as many sockets as it takes."""

from signaling.client.client import Client
from signaling.client.errors import SignalingError
from signaling.client.pacing import FIRST_DELAY, LONGEST_DELAY, Pacer
from signaling.client.token import Token

__all__ = ["FIRST_DELAY", "LONGEST_DELAY", "Client", "Pacer", "SignalingError", "Token"]
