"""Allocations, permissions and channels (RFC 8656): the only code that changes them."""
