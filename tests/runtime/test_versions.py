"""The versions of installed packages."""

import jax
import numpy as np

from fcn_jax.runtime.versions import PACKAGES, read_versions


def test_versions_are_those_that_the_packages_give_themselves():
    assert read_versions(("numpy", "jax")) == {"numpy": np.__version__, "jax": jax.__version__}
    assert read_versions().keys() == set(PACKAGES)
