"""Sweeps: many runs of one experiment with different settings, and what they come to."""
