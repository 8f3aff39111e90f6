"""Short names of models: those that ship with the package, and the official release's."""

SHIPPED = ("nano", "nano-onestep")

# The repository that the official README names, and its folders.
RELEASE_REPO = "CSWRY/VOSR"
RELEASED = {
    "2.0": "VOSR2",
    "vosr2": "VOSR2",
    "0.5b": "VOSR_0.5B_ms",
    "0.5b-onestep": "VOSR_0.5B_os",
    "1.4b": "VOSR_1.4B_ms",
    "1.4b-onestep": "VOSR_1.4B_os",
}
