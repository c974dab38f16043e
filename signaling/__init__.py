"""The signaling service: rooms, sessions and the messages between peers."""
