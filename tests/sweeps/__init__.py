"""Sweeps: overrides, trials, running them once, and comparing them."""
