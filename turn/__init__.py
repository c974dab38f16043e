"""The STUN/TURN service. The road of a packet is drawn in ARCHITECTURE.md."""
