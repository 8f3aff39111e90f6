"""Restoration of photos on disk and of images in memory."""
