"""One objective, one file, one signature.

loss(velocity_fn, batch, key, settings, *, teacher_fn=None, draws=None) -> (loss, metrics)
"""
