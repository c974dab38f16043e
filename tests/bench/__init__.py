"""Benchmarks: ours beside coturn in the same run. ``make bench`` runs them all."""
