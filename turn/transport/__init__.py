"""How messages of clients come and go: UDP, TCP, TLS. Every shell is thin; the engine decides."""
