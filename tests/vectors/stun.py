"""The sample messages of RFC 5769 §2 and RFC 8489 Appendix B.1, byte for byte.

RFC 5769 pads with spaces on purpose: what lies in the padding must not matter to a reader.
"""

PASSWORD = "VOkJxbRl1RmTxUk/WvJxBt"
"""The short-term password of the first three samples."""
MATRIX = "\u30de\u30c8\u30ea\u30c3\u30af\u30b9"
"""The username of the long-term samples, which need no preparation."""
MATRIX_PASSWORD = "TheMatrIX"
"""Their password, prepared."""
MATRIX_REALM = "example.org"

# RFC 5769 §2.1: a connectivity check.
REQUEST = bytes.fromhex(
    "0001 0058  2112a442  b7e7a701 bc34d686 fa87dfae"  # Binding request, 88 bytes
    "8022 0010  5354554e 20746573 7420636c 69656e74"  # SOFTWARE "STUN test client"
    "0024 0004  6e0001ff"  # PRIORITY
    "8029 0008  932ff9b1 51263b36"  # ICE-CONTROLLED
    "0006 0009  6576746a 3a683676 59 202020"  # USERNAME "evtj:h6vY"
    "0008 0014  9aeaa70c bfd8cb56 781ef2b5 b2d3f249 c1b571a2"  # MESSAGE-INTEGRITY
    "8028 0004  e57a3bcf"  # FINGERPRINT
)

# RFC 5769 §2.2: its answer over IPv4.
RESPONSE_IPV4 = bytes.fromhex(
    "0101 003c  2112a442  b7e7a701 bc34d686 fa87dfae"  # Binding success, 60 bytes
    "8022 000b  74657374 20766563 746f72 20"  # SOFTWARE "test vector"
    "0020 0008  00 01 a147 e112a643"  # XOR-MAPPED-ADDRESS 192.0.2.1:32853
    "0008 0014  2b91f599 fd9e90c3 8c7489f9 2af9ba53 f06be7d7"  # MESSAGE-INTEGRITY
    "8028 0004  c07d4c96"  # FINGERPRINT
)

# RFC 5769 §2.3: its answer over IPv6.
RESPONSE_IPV6 = bytes.fromhex(
    "0101 0048  2112a442  b7e7a701 bc34d686 fa87dfae"  # Binding success, 72 bytes
    "8022 000b  74657374 20766563 746f72 20"  # SOFTWARE "test vector"
    "0020 0014  00 02 a147 0113a9fa a5d3f179 bc25f4b5 bed2b9d9"  # XOR-MAPPED-ADDRESS
    "0008 0014  a382954e 4be67bf1 1784c97c 8292c275 bfe3ed41"  # MESSAGE-INTEGRITY
    "8028 0004  c8fb0b4c"  # FINGERPRINT
)

# RFC 5769 §2.4: a request with a long-term credential.
LONG_TERM = bytes.fromhex(
    "0001 0060  2112a442  78ad3433 c6ad72c0 29da412e"  # Binding request, 96 bytes
    "0006 0012  e3839ee3 8388e383 aae38383 e382afe3 82b9 0000"  # USERNAME
    "0015 001c  662f2f34 39396b39 35346436 4f4c3334 6f4c3946 53547679 36347341"  # NONCE
    "0014 000b  6578616d 706c652e 6f7267 00"  # REALM "example.org"
    "0008 0014  f6702465 6dd64a3e 02b8e071 2e85c9a2 8ca89666"  # MESSAGE-INTEGRITY
)
LONG_TERM_NONCE = "f//499k954d6OL34oL9FSTvy64sA"

# RFC 8489 §B.1 with the correction of erratum 6268 (PASSWORD-ALGORITHM, the length and the HMAC).
LONG_TERM_SHA256 = bytes.fromhex(
    "0001 0090  2112a442  78ad3433 c6ad72c0 29da412e"  # Binding request, 144 bytes
    "001e 0020  4a3cf38f ef6992bd a952c678 0417da0f"  # USERHASH
    "           24819415 569e60b2 05c46e41 407f1704"
    "0015 0029  6f624d61 744a6f73 32414141 43662f2f 3439396b"
    "           39353464 364f4c33 346f4c39 46535476 79363473 41 000000"  # NONCE
    "0014 000b  6578616d 706c652e 6f7267 00"  # REALM "example.org"
    "001d 0004  0002 0000"  # PASSWORD-ALGORITHM SHA-256
    "001c 0020  b5c7bf00 5b6c52a2 1c51c5e8 92f81924"  # MESSAGE-INTEGRITY-SHA256
    "           136296cb 927c4314 9309278c c6518e65"
)
LONG_TERM_SHA256_NONCE = "obMatJos2AAACf//499k954d6OL34oL9FSTvy64sA"

ALL = (REQUEST, RESPONSE_IPV4, RESPONSE_IPV6, LONG_TERM, LONG_TERM_SHA256)
