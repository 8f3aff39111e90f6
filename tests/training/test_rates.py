"""MFU needs no CPU backend, and no figure that can't be had ends a run."""

import jax
import pytest

from tests.training.tiny import tiny_config
from vosr_jax.training import timing as module
from vosr_jax.training.abstract import analytic_flops
from vosr_jax.training.build import mesh_of
from vosr_jax.training.timing import Rates


def known_peak(monkeypatch) -> None:
    monkeypatch.setattr(module, "_peak_flops", lambda mesh: 1e12)


def figures(config) -> dict[str, float]:
    rates = Rates(config, mesh_of(config, jax.devices()[:1]))
    rates.waited(0.0)
    rates.stepped(2.0)
    return rates.take()


def test_operations_are_counted_without_a_cpu_backend(monkeypatch):
    """As where JAX_PLATFORMS names an accelerator alone."""
    known_peak(monkeypatch)
    config = tiny_config()

    def only_default(ask):
        def asked(*arguments, backend=None, **others):
            if backend is not None or arguments:
                raise RuntimeError(f"Unknown backend {backend or arguments}")
            return ask(**others)

        return asked

    expected = analytic_flops(config)
    for name in ("devices", "local_devices"):
        monkeypatch.setattr(jax, name, only_default(getattr(jax, name)))
    # Four pairs in two seconds on a device of 10^12 operations a second.
    assert figures(config)["mfu"] == pytest.approx(expected * 2 / 1e12)


def test_operations_are_the_same_whichever_device_is_meant():
    pytest.importorskip("libtpu")
    from vosr_jax.planning.topology import devices_of, parse_topology

    config = tiny_config(encoder={"kind": "dinov2s", "path": "own"})
    device = devices_of(parse_topology("v5e:2x2"))[-1]
    assert analytic_flops(config, device) == analytic_flops(config) > 0


def test_what_cannot_be_counted_is_said_and_left_out(monkeypatch, capsys):
    known_peak(monkeypatch)
    config = tiny_config(encoder={"kind": "dinov2", "path": "own", "token_width": 8})
    values = figures(config)
    assert "mfu" not in values and values["pairs_per_second"] == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "no mfu" in told and "encoder.kind=dinov2" in told
