"""DINOv2, the frozen visual encoder: its network, and the official names of its weights."""
