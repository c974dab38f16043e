"""Who may use the relay (RFC 8489 §9.2), and proof of it without memory."""
