"""Comings and goings by the hundred thousand, and what is left of them: nothing."""
