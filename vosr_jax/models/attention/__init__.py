"""Attention: the plain formula and each platform's kernels behind one function."""
