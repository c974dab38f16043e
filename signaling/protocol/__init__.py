"""The protocol ``icebroker.v1``: JSON text frames over a WebSocket."""

SUBPROTOCOL = "icebroker.v1"
FEATURES = ("resume", "ack", "candidates", "ice-push", "stats")
"""What this server can do beyond the first version; a client asks here, not for a number."""
