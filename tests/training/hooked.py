"""train.py with hooks: python -m tests.training.hooked JSON [train.py's arguments].

JSON is an object; what it does not name stays as it is:
  order: the devices that `create_device_mesh` gives are put into this order.
  rows: a file, ending in the process's number, that gets every row of every batch as it lies on
    this process's devices: row, index, hash of the pictures.
  poison: index of a sample whose latent is NaN, so that its update is skipped.
  process: whose trouble the following is.
  fails_at: the so manieth batch cannot be made, by a bug of the loader.
  folder_goes_at: after this step, which all processes have run, this folder ("folder") is removed.
  full: this process can add nothing to its lists in the workdir, as on a full disk.
"""

import builtins
import errno
import hashlib
import io
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np


def reorder(order: list[int]) -> None:
    from jax.experimental import mesh_utils

    plain = mesh_utils.create_device_mesh

    def permuted(shape, devices, **options):
        given = plain(shape, devices, **options).reshape(-1)
        return given[order].reshape(shape)

    mesh_utils.create_device_mesh = permuted


def tell_rows(path: str) -> None:
    from tests.diffusion.words import words_index
    from vosr_jax.training import loop

    plain, batches = loop.device_batch, []

    def told(batch, run):
        placed = plain(batch, run)
        import jax

        with Path(f"{path}{jax.process_index()}").open("a") as out:
            for hr, lq, index in zip(
                *(placed[name].addressable_shards for name in ("hr", "lq", "index")), strict=True
            ):
                first = hr.index[0].indices(len(placed["hr"]))[0]
                for at, number in enumerate(words_index(np.asarray(index.data))):
                    content = np.stack([np.asarray(part.data)[at] for part in (hr, lq)])
                    content = hashlib.sha256(content.tobytes()).hexdigest()[:16]
                    row = {"batch": len(batches), "row": first + at, "index": int(number)}
                    out.write(json.dumps(row | {"hash": content}) + "\n")
        batches.append(1)
        return placed

    loop.device_batch = told


def poison(index: int) -> None:
    import jax.numpy as jnp

    from vosr_jax.training.frozen import FrozenNets

    plain = FrozenNets.inputs

    def poisoned(self, weights, batch, key):
        inputs = plain(self, weights, batch, key)
        hit = (batch["index"][:, 1] == index)[:, None, None, None]
        return inputs | {"hr_latent": jnp.where(hit, jnp.nan, inputs["hr_latent"])}

    FrozenNets.inputs = poisoned


def fail(process: int, at: int) -> None:
    from vosr_jax.data.pipeline import Batches

    plain, taken = Batches.take, []

    def take(self):
        import jax

        taken.append(1)
        if jax.process_index() == process and len(taken) == at:
            raise KeyError("a bug of the loader")
        return plain(self)

    Batches.take = take


def remove(process: int, at: int, folder: str) -> None:
    from vosr_jax.training.guard import UpdateGuard

    plain = UpdateGuard.see

    def see(self, step, metrics):
        import jax

        # Asked for, since a step is only begun where it is called.
        jax.block_until_ready(metrics)
        if jax.process_index() == process and step == at:
            shutil.rmtree(folder)
        return plain(self, step, metrics)

    UpdateGuard.see = see


def fill_disk(process: int) -> None:
    plain = io.open

    def full(file, mode="r", *others, **named):
        import jax

        lists = str(file).endswith(("bad_records.jsonl", "incidents.jsonl"))
        if lists and "a" in mode and jax.process_index() == process:
            raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return plain(file, mode, *others, **named)

    builtins.open = io.open = full


def main() -> None:
    hooks, arguments = json.loads(sys.argv[1]), sys.argv[2:]
    if "order" in hooks:
        reorder(hooks["order"])
    if "rows" in hooks:
        tell_rows(hooks["rows"])
    if "poison" in hooks:
        poison(hooks["poison"])
    if "fails_at" in hooks:
        fail(hooks["process"], hooks["fails_at"])
    if "folder_goes_at" in hooks:
        remove(hooks["process"], hooks["folder_goes_at"], hooks["folder"])
    if hooks.get("full"):
        fill_disk(hooks["process"])
    sys.argv = ["train.py", *arguments]
    runpy.run_path("train.py", run_name="__main__")


if __name__ == "__main__":
    main()
