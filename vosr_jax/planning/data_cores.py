"""How many cores the data of a training run needs."""

# CPU seconds to make one pair from a JPEG file of two megapixels, by the pair's side; measured
# with benchmarks/pipeline.py on a core of an AMD EPYC (docs/data.md).
_MEASURED = {128: 0.0115, 512: 0.043}


def cores_a_pair(side: int) -> float:
    """Cores that one pair per second keeps fully busy, by the crop's side in pixels."""
    (small, few), (large, many) = sorted(_MEASURED.items())
    share = (side**2 - small**2) / (large**2 - small**2)
    return max(few + share * (many - few), few)
