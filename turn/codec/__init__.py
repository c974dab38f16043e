"""STUN and TURN on the wire (RFC 8489, RFC 8656): bytes to values and back, and nothing else.

Functions that read bytes of the network are named ``…_untrusted`` or documented to raise
``Malformed``, which is all that they raise.
"""
