"""Predict what a training step needs on devices that are not at hand, by compiling it."""
