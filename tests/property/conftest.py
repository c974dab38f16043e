"""How Hypothesis runs here."""

from hypothesis import settings

# A deadline would make a slow machine a failing one.
settings.register_profile("icebroker", deadline=None, print_blob=True)
settings.load_profile("icebroker")
