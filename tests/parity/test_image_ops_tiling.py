"""Tile grids and weights against the official inference scripts' helpers: exact."""

import numpy as np

from tests.parity import goldens
from vosr_jax.restoration.tiled.latent import gaussian_weights, plan_tiles, tile_starts


def test_tile_starts_are_the_official_ones():
    grid = goldens.read_json(goldens.folder("image_ops") / "tiling.json")["grid"]
    wrong = [c for c in grid if tile_starts(c["length"], c["tile"], c["overlap"]) != c["positions"]]
    goldens.record("image_ops/tiling/grid", float(len(wrong)), 0)


def test_tile_sizes_are_what_the_official_scripts_derive():
    cases = goldens.read_json(goldens.folder("image_ops") / "tiling.json")["effective"]
    for number, case in enumerate(cases):
        latent = [side // 8 for side in case["image_hw"]]
        sizes = case["tile_size"], case["tile_overlap"]
        grid = plan_tiles((latent[0], latent[1]), *sizes, 8, case["patch_size"])
        assert (grid is not None) == case["tiled"]
        if grid is not None:
            assert grid.side == case["latent_tile"]
            assert (list(grid.rows), list(grid.columns)) == (case["rows"], case["cols"])
        goldens.record(f"image_ops/tiling/effective/{number}", 0.0, 0)


def test_weights_are_the_official_ones():
    data = goldens.arrays(goldens.folder("image_ops") / "tiling.npz")
    found = {key: value for key, value in data.items() if key.startswith("weights_")}
    assert found
    for key, golden in found.items():
        ours = gaussian_weights(*golden.shape)
        np.testing.assert_allclose(ours, golden, rtol=2e-6)
        goldens.check(f"image_ops/tiling/{key}", ours, golden, 1e-6)
