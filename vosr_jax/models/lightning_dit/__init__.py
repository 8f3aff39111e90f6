"""LightningDiT, the denoiser: settings, block, network, and the official names of its weights."""
