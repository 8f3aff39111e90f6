"""Attention behind one function: the plain formula, and the kernels of each platform."""
