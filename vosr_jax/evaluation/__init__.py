"""Metrics and the benchmark on held-out images."""
