"""Metrics and the benchmark over held-out pictures."""
