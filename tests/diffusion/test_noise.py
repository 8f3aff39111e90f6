"""A row's draws depend on the run's key and its index alone."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.diffusion.words import words_index
from vosr_jax.diffusion.noise import (
    batch_key,
    columns_index,
    index_columns,
    index_words,
    normal_rows,
    row_keys,
)
from vosr_jax.diffusion.objectives.flow_matching import FlowMatchingSettings, draw

KEY = jax.random.key(7)


def draws_of(index, step: int = 0) -> dict:
    index = np.asarray(index)
    batch = {
        "index": jnp.asarray(index_words(index)),
        "step": jnp.int32(step),
        "lq_latent": jnp.zeros((len(index), 2, 2, 3)),
    }
    return draw(KEY, batch, FlowMatchingSettings())


def test_draws_follow_the_index_whatever_the_batch_and_the_place_in_it():
    together = draws_of([5, 6, 7, 8])
    alone = draws_of([8, 99, 5], step=3)
    for name, values in together.items():
        if name != "weak_strength":
            np.testing.assert_array_equal(values[jnp.array([3, 0])], alone[name][jnp.array([0, 2])])


def test_every_purpose_and_every_row_has_draws_of_its_own():
    draws = draws_of(range(64))
    noise, other = np.asarray(draws["noise"]), np.asarray(draws["condition_noise"])
    assert len(np.unique(noise)) == noise.size
    assert abs(np.corrcoef(noise.ravel(), other.ravel())[0, 1]) < 0.15
    assert len(np.unique(draws["time_draw"])) == 64
    uniform, time = draws["condition_dropout_uniform"], draws["time_draw"]
    assert abs(np.corrcoef(uniform, time)[0, 1]) < 0.4


def test_the_weak_strength_changes_with_the_step_and_stays_in_its_range():
    strengths = np.array([draws_of([1], step)["weak_strength"] for step in range(50)])
    assert len(set(strengths.tolist())) == 50
    assert 0.05 <= strengths.min() < 0.08 and 0.22 < strengths.max() <= 0.25
    assert draws_of([1], 3)["weak_strength"] == draws_of([2, 3], 3)["weak_strength"]


def test_positions_beyond_32_bits_stay_apart():
    index = np.array([5, 5 + 2**32, 5 + 2**33, 5], np.int64)
    words = index_words(index)
    np.testing.assert_array_equal(words.astype(np.int64) @ [2**32, 1], index)
    normals = np.asarray(normal_rows(row_keys(KEY, words), 0, (4,)))
    assert len(np.unique(normals[:3])) == 12
    np.testing.assert_array_equal(normals[0], normals[3])


def test_rows_and_batches_never_share_a_key():
    data = jax.random.key_data
    rows = data(row_keys(KEY, index_words(np.arange(20))))
    steps = np.stack([data(batch_key(KEY, step)) for step in range(20)])
    assert len(np.unique(np.concatenate([rows, steps]), axis=0)) == 40


def test_positions_survive_words_and_columns():
    index = np.array([0, 1, 2**24 - 1, 2**24, 2**32 - 1, 2**32, 2**33 + 5, 2**48 - 1])
    words = index_words(index)
    np.testing.assert_array_equal(words_index(words), index)
    columns = index_columns(jnp.asarray(words))
    assert all(column.dtype == jnp.float32 for column in columns.values())
    np.testing.assert_array_equal(columns_index(columns), index)
