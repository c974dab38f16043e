"""The user-space data plane: relayed transport addresses and the packets through them."""
