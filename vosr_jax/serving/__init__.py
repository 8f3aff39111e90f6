"""Upscaling as a service: one queue, one worker, an HTTP interface and a page before them."""
