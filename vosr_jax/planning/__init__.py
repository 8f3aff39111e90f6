"""What a training step will need on devices that are not at hand: compiled, read and reckoned."""
