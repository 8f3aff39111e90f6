"""Latents and autoencoders of any size, computed in tiles within a bounded memory."""
