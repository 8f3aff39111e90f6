"""Sharded training: state, step, checkpoints and loop."""
