"""Upscaling as a service: an HTTP interface and a page, one queue, one worker per device."""
