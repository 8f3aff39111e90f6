"""Training data: from photos to pairs of low and high quality, without JAX."""
