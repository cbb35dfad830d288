"""VGG: the paper's parameters. What it computes is compared in test_against_torchvision.py and test_reference.py."""

import jax
import jax.numpy as jnp

from fcn_jax.models.fcn import FCN32s


def test_paper_s_network_has_its_parameters():
    """134 M (CVPR 2015, table 1): VGG16 with a score layer of 21 classes in place of its last layer of 1000."""
    model = FCN32s(21, "vgg16", upsampling="fixed")
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert count == 138_357_544 - 1000 * 4097 + 21 * 4097
    assert round(count / 1e6) == 134
