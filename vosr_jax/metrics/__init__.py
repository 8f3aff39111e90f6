"""Image metrics: arrays in, numbers out."""
