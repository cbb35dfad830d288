"""`python -m fcn_jax` is `fcn-jax`."""

from fcn_jax.cli import main

main()
