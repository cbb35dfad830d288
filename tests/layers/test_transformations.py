"""The layers under JAX's transformations: gradients of gradients, vmap, devices, meshes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from layer_loops import quick_jit

from fcn_jax.layers import conv_transpose, depth_to_space, max_pool, shift_and_stitch, upsample_bilinear


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def assert_all_close(got, want):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), got, want)


# Each takes x: [8, 5, 4, 4] and a kernel: [4, 4, 4, 8]; each ends with a square, which is not linear.
def dense(method, x, kernel):
    return (conv_transpose(x, kernel, 2, 1, method=method) ** 2).sum()


def grouped(x, kernel):
    return (conv_transpose(x, kernel[:, :, :2], 2, (1, (0, 2)), feature_group_count=2) ** 2).sum()


def bilinear(x, kernel):
    return (upsample_bilinear(x, (2, 4)) ** 2).sum() + kernel.sum()


def pool(x, kernel):
    return (max_pool(x, 3, 2, 1, ceil=True) ** 2).sum() + kernel.sum()


def stitched(x, kernel):
    return (depth_to_space(shift_and_stitch(lambda v: max_pool(v, 2), x, 2), 2) ** 2).sum() + kernel.sum()


FUNCTIONS = {
    "matmul": functools.partial(dense, "matmul"),
    "conv": functools.partial(dense, "conv"),
    "plain": functools.partial(dense, "plain"),
    "grouped": grouped,
    "bilinear": bilinear,
    "pool": pool,
}
each = pytest.mark.parametrize("name", FUNCTIONS)


@each
def test_directional_derivatives_agree_with_the_gradient_and_with_differences(name):
    """Forward and reverse mode, first and second order, against central differences in float64."""
    with jax.enable_x64(True):
        x, kernel, dk = (
            v.astype(jnp.float64) for v in (draw(2, 5, 4, 4), draw(4, 4, 4, 8, seed=1), draw(4, 4, 4, 8, seed=2))
        )
        dx = jnp.cos(3 * x)
        loss = FUNCTIONS[name]

        @quick_jit
        def derivatives(x, kernel):
            def slope(x, kernel):
                return jax.jvp(loss, (x, kernel), (dx, dk))[1]

            gx, gk = jax.grad(loss, (0, 1))(x, kernel)
            second = jax.jvp(jax.grad(loss), (x, kernel), (dx, dk))[1]  # forward over reverse
            return (
                slope(x, kernel),
                jnp.vdot(gx, dx) + jnp.vdot(gk, dk),
                jnp.vdot(second, dx),
                jax.grad(slope)(x, kernel),
            )

        forward, reverse, curvature, mixed = derivatives(x, kernel)
        step = 1e-5
        up, down = (quick_jit(loss)(x + s * dx, kernel + s * dk) for s in (step, -step))
        np.testing.assert_allclose(forward, (up - down) / (2 * step), rtol=1e-6)
        np.testing.assert_allclose(reverse, forward, rtol=1e-10)
        np.testing.assert_allclose(jnp.vdot(mixed, dx), curvature, rtol=1e-10)  # reverse over forward


@each
def test_vmap_is_the_loop(name):
    x, kernel = draw(3, 2, 5, 4, 4), draw(3, 4, 4, 4, 8, seed=1)
    value = jax.value_and_grad(FUNCTIONS[name], (0, 1))
    many = quick_jit(lambda x, kernel: (jax.vmap(value)(x, kernel), jax.vmap(value, (0, None))(x, kernel[0])))(
        x, kernel
    )
    one = quick_jit(value)
    for i in range(3):
        assert_all_close(jax.tree.map(lambda v, i=i: v[i], many), (one(x[i], kernel[i]), one(x[i], kernel[0])))


@pytest.mark.parametrize("axes", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", [*FUNCTIONS, "stitched"])
def test_batch_is_split_over_devices(name, axes):
    """With both kinds of mesh each device computes its own images, and only the kernel's gradient is exchanged."""
    loss = FUNCTIONS.get(name, stitched)
    x, kernel = draw(8, 5, 4, 4), draw(4, 4, 4, 8, seed=1)
    want = quick_jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(axes,))
    with jax.set_mesh(mesh):
        images = NamedSharding(mesh, PartitionSpec("data"))
        x, kernel = jax.device_put(x, images), jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))
        compiled = quick_jit(jax.value_and_grad(loss, (0, 1))).lower(x, kernel).compile()
        got = compiled(x, kernel)
    assert_all_close(got, want)
    for moved in ("all-gather", "all-to-all", "collective-permute"):
        assert moved not in compiled.as_text() or name == "plain"
    if name != "plain":
        assert got[1][0].sharding.is_equivalent_to(images, 4)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_axis_may_be_split_over_an_automatic_mesh(name, axis):
    x, kernel = draw(2, 8, 8, 4), draw(4, 4, 4, 8, seed=1)
    value = quick_jit(jax.value_and_grad(FUNCTIONS[name], (0, 1)))
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
    split = jax.device_put(x, NamedSharding(mesh, PartitionSpec(*(None,) * axis, "data")))
    assert_all_close(value(split, jax.device_put(kernel, NamedSharding(mesh, PartitionSpec()))), value(x, kernel))


@each
def test_inside_shard_map(name):
    loss = FUNCTIONS[name]
    x, kernel = draw(8, 5, 4, 4), draw(4, 4, 4, 8, seed=1)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split, whole = PartitionSpec("data"), PartitionSpec()

    def total(x, kernel):
        return jax.lax.psum(loss(x, kernel) - kernel.sum(), "data") + kernel.sum()

    mapped = jax.shard_map(jax.grad(total, (0, 1)), mesh=mesh, in_specs=(split, whole), out_specs=(split, whole))

    def loop(x, kernel):
        return sum(loss(x[i : i + 1], kernel) - kernel.sum() for i in range(8))

    gx, gk = quick_jit(jax.grad(loop, (0, 1)))(x, kernel)
    assert_all_close(quick_jit(mapped)(x, kernel), (gx, gk + 1))
