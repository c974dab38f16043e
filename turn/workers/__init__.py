"""Several processes that are one relay: they share its addresses, its quotas and its metrics."""
