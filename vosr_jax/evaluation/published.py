"""Published figures for the protocols, to show beside ours.

They come from a third party's transcript of the paper (arXiv 2604.03225) and are not computed here.
Its PSNR and SSIM are on Y. It does not state whether in 16-235 or in 0-255, so they have columns of
their own.
"""

COLUMNS = {
    "psnr_y_unstated": "PSNR Y, range not stated (dB)",
    "ssim_y_unstated": "SSIM Y, range not stated",
    "lpips": "LPIPS",
    "dists": "DISTS",
    "niqe": "NIQE",
    "musiq": "MUSIQ",
    "maniqa": "MANIQA",
}
SOURCE = "third party's transcript of arXiv 2604.03225; not computed here"

_REALSR = {
    "VOSR 0.5B multi-step": (25.4361, 0.7125, 0.3069, 0.2260, 5.7070, 68.9277, 0.6429),
    "VOSR 1.4B multi-step": (25.2886, 0.7150, 0.2961, 0.2226, 6.2614, 70.4718, 0.6510),
    "VOSR 0.5B one-step": (25.4189, 0.7220, 0.2856, 0.2110, 5.2790, 69.7775, 0.6347),
    "VOSR 1.4B one-step": (25.2284, 0.7175, 0.2732, 0.2054, 5.4303, 70.5813, 0.6443),
    "PiSA-SR": (25.5030, 0.7418, 0.2672, 0.2044, 5.5033, 70.1421, 0.6551),
    "OSEDiff (its own log)": (25.1511, 0.7341, 0.2921, None, None, 69.09, None),
}


def published(protocol: str) -> dict[str, dict[str, float]]:
    """{method: {column: figure}}; empty for a protocol without figures."""
    tables = {"realsr": _REALSR}
    return {
        method: {k: v for k, v in zip(COLUMNS, figures, strict=True) if v is not None}
        for method, figures in tables.get(protocol, {}).items()
    }
