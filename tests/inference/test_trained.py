"""Loading the trained network of a run."""

import jax
import numpy as np
import pytest
from random_network import examples

from fcn_jax.data.canvas import place_on_canvas
from fcn_jax.errors import InputError
from fcn_jax.inference.trained import load_trained
from fcn_jax.runs.run_dir import open_run


def test_the_best_checkpoint_is_loaded_unless_a_step_is_given(run_dir):
    run = open_run(run_dir)
    best, last = load_trained(run, labelled=True), load_trained(run, 2, labelled=True)
    assert (best.step, last.step) == (1, 2)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(2 * a, b), best.variables, last.variables)


@pytest.mark.parametrize("labelled", [True, False])
def test_the_loss_is_computed_only_with_labels(run_dir, labelled):
    forward, variables, *_ = load_trained(open_run(run_dir), labelled=labelled)
    example = examples()[0]
    scored = forward(variables, place_on_canvas([example], 1, (64, 64)))
    assert scored.class_map.shape == (1, 64, 64)
    assert len(np.unique(scored.class_map[0, :40, :50])) > 1
    assert (scored.loss > 0) == labelled
    assert int(scored.pixels) == (int((example.label != 255).sum()) if labelled else 0)
    assert scored.probabilities is None


def test_probabilities_are_computed_if_asked_for(run_dir):
    forward, variables, *_ = load_trained(open_run(run_dir), labelled=False, probabilities=True)
    scored = forward(variables, place_on_canvas([examples()[0]], 1, (64, 64)))
    assert (scored.probabilities.shape, scored.probabilities.dtype) == ((1, 64, 64, 3), np.float16)
    assert scored.loss == 0


def test_a_checkpoint_that_is_not_there(run_dir):
    with pytest.raises(InputError, match="no checkpoint 3"):
        load_trained(open_run(run_dir), 3, labelled=True)


def test_the_side_of_tiles_is_rounded_up_and_may_be_0(run_dir):
    run = open_run(run_dir)
    assert load_trained(run, labelled=False).tiling.side == 1024
    assert load_trained(run, labelled=False, tile=33).tiling.side == 64
    assert load_trained(run, labelled=False, tile=0).tiling is None
    with pytest.raises(InputError, match="tile is -2; it must be at least 1"):
        load_trained(run, labelled=False, tile=-2)
