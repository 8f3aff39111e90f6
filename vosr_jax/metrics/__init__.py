"""Figures of images: arrays in, numbers out."""
