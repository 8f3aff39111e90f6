"""Photographs in, pairs of low and high quality out; no JAX here."""
