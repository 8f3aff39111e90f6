"""The paper's test protocols, for eval.py and any model.

    python eval.py --config configs/protocols.py:realsr --workdir DIR \
        --config.eval.model=0.5b --config.eval.hr=HR --config.eval.lr=LR

configs/protocols.py:NAME picks one of

    realsr     RealSR x4: 100 pairs, HR of 512 px and LR of 128 px, as StableSR's authors cut them;
               of the full RealSR pictures set eval.centre_crop=512, names end in _HR and _LR4
    drealsr    DRealSR x4, cut likewise, 93 pairs
    screensr   ScreenSR: 130 pairs of 512 px each, restored at their own size
    lsdir      LSDIR, 250 pictures of 512 px from synthetic inputs of 128 px
    div2k      DIV2K, 3000 crops of 512 px from synthetic inputs of 128 px, as StableSR's
    realdeg    photographs without a truth (eval.lr alone): measures without reference

Folders hold pictures of the same names. VOSR multi-step takes 25 steps, and guidance -0.5 on
RealSR, 0.5 on ScreenSR; where the paper names none, -0.5 stands here and is part of the row's name.
A one-step model ignores both: set eval.steps=(1,). No border is cut. PSNR and SSIM on Y are given
in both ranges in use: 16-235 (BasicSR and most tables) and 0-255 (pyiqa, so OSEDiff's script).
"""

import dataclasses

from vosr_jax import config as c

_TRUTH = (
    *("psnr", "psnr_y", "psnr_y_full", "ssim", "ssim_y", "ssim_y_full"),
    *("lpips", "dists", "edge_similarity"),
)
_PYIQA = ("musiq", "maniqa-pipal", "clipiqa", "topiq_nr", "afine_nr")
_NO_TRUTH = ("niqe", "drift", *(f"pyiqa:{name}" for name in _PYIQA))


def _protocol(name: str, *, guidance: float, scale: int = 4, truth: bool = True) -> c.Config:
    plain = c.Config(
        autoencoder=c.AutoencoderConfig(kind="space_to_depth", downscale=2),
        encoder=c.EncoderConfig(kind="none"),
        data=c.DataConfig(scale=scale),
    )
    judged = c.EvalConfig(
        steps=(25,),
        guidance_scales=(guidance,),
        metrics=(*_TRUTH, *_NO_TRUTH) if truth else _NO_TRUTH,
        peers=("bicubic", "lanczos"),
        name_endings=("_HR", "_LR4"),
        protocol=name,
    )
    return dataclasses.replace(plain, eval=judged)


def get_config(name: str = ""):
    """One protocol; the model's own settings come with its weights."""
    made = {
        "realsr": lambda: _protocol("realsr", guidance=-0.5),
        "drealsr": lambda: _protocol("drealsr", guidance=-0.5),
        "screensr": lambda: _protocol("screensr", guidance=0.5, scale=1),
        "lsdir": lambda: _protocol("lsdir", guidance=-0.5),
        "div2k": lambda: _protocol("div2k", guidance=-0.5),
        "realdeg": lambda: _protocol("realdeg", guidance=-0.5, truth=False),
    }
    if name not in made:
        raise ValueError(f"configs/protocols.py has {', '.join(made)}, not {name!r}")
    return c.get_config_dict(made[name]())
