"""experiments/transposed_conv: the definitions behind its numbers, and its commands as whole processes."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from xla_flags import FAST_COMPILE

from fcn_jax.data.dataset import prepare
from fcn_jax.layers import bilinear_kernel, conv_transpose

HERE = Path(__file__).parents[2] / "experiments" / "transposed_conv"
sys.path.insert(0, str(HERE))

import report  # noqa: E402
import response  # noqa: E402
import settings  # noqa: E402
import training  # noqa: E402
from settings import Setting, choose_even, choose_odd, choose_tiled  # noqa: E402
from training import make_fixed, make_learned  # noqa: E402


def test_exact_settings_of_factor_2():
    assert settings.list_exact_settings(2) == [(1, 2, 0, 1), (2, 2, 0, 0), (3, 2, 1, 1), (4, 2, 1, 0)]


@pytest.mark.parametrize("factor", [2, 3, 4, 8])
def test_exact_settings_are_complete(factor):
    sides = itertools.product(range(1, 2 * factor + 1), range(2 * factor), range(factor))
    expected = {
        Setting(kernel, factor, padding, extra)
        for kernel, padding, extra in sides
        if padding < kernel and all((n - 1) * factor - 2 * padding + kernel + extra == n * factor for n in (1, 5))
    }
    assert set(settings.list_exact_settings(factor)) == expected


SETTINGS = [Setting(4, 2, 1), Setting(3, 2, 1, 1), Setting(5, 4, 1, 1), Setting(2, 4, 0, 2)]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_upsample_line_is_the_transposed_convolution(setting):
    kernel, stride, padding, output_padding = setting
    rng = np.random.default_rng(0)
    cells, taps = rng.normal(size=5), rng.normal(size=kernel)
    # Kernels of Flax are those of PyTorch and Caffe in reverse order.
    x, weights = (jnp.asarray(v, jnp.float32)[:, None] for v in (cells, taps[::-1].copy()))
    expected = conv_transpose(x[None], weights[..., None], (stride,), padding, output_padding=output_padding)
    np.testing.assert_allclose(settings.upsample_line(setting, cells, taps), expected[0, :, 0], atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4, 8, 16, 32])
def test_responses_known_in_advance(factor):
    a, b, c = (settings.measure_response(rule(factor)) for rule in (choose_even, choose_tiled, choose_odd))
    assert (a.shift, b.shift, c.shift) == (0, 0, -(factor - 1) / 2)
    assert c.shift_on_pixels == 0
    assert (a.gain, c.gain) == (1, 1)
    assert b.gain == 0.25  # the tent of k taps adds up to k / 2 on each axis
    assert (a.ripple, c.ripple) == pytest.approx((0, 0), abs=1e-6)
    assert b.ripple == pytest.approx(bilinear_kernel(factor).std() / bilinear_kernel(factor).mean())
    assert (a.border, b.border, c.border) == (factor, 0, factor - 1)
    assert (b.corner, c.corner) == (1, pytest.approx(1 / factor**2))


def test_every_pixel_of_output_padding_shifts_by_half_a_pixel():
    for setting in settings.list_exact_settings(8):
        assert settings.measure_response(setting).shift == -setting.output_padding / 2


def test_shift_and_stitch_averages_around_every_pixel():
    image = np.random.default_rng(0).random((12, 16))
    dense = response.average_everywhere(image, 4)
    padded = np.pad(image, 4)
    for row, column in itertools.product(range(12), range(16)):
        window = padded[row + 2 : row + 6, column + 2 : column + 6]
        assert dense[row, column] == pytest.approx(window.mean(), abs=1e-6)


def draw_values(seed: int = 0, size: tuple[int, int] = (4, 5)) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (1, *size, 3))


def apply_alone(way: training.Upsampling, x: jax.Array, factor: int, size: tuple[int, int]) -> jax.Array:
    class Alone(training.nn.Module):
        @training.nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return way(x, factor, size, "up")

    return jnp.asarray(Alone().init_with_output(jax.random.key(1), x)[0])


@pytest.mark.parametrize("rule", [choose_even, choose_tiled])
def test_a_fixed_kernel_is_the_start_of_a_learned_one(rule):
    x = draw_values()
    expected = apply_alone(make_learned(rule), x, 8, (30, 37))
    np.testing.assert_allclose(apply_alone(make_fixed(rule), x, 8, (30, 37)), expected, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 8])
def test_unit_gain_keeps_the_mean(factor):
    x, size = jnp.ones((1, 4, 4, 3)), (4 * factor, 4 * factor)
    scaled = apply_alone(make_learned(choose_tiled, training.init_unit_gain), x, factor, size)
    np.testing.assert_allclose(scaled.mean(axis=(0, 1, 2)), 1, rtol=1e-5)
    bilinear = apply_alone(make_learned(choose_tiled), x, factor, size)
    assert bilinear.mean() == pytest.approx(0.25)


def test_resize_differs_from_a_only_at_the_border():
    x = draw_values()
    resized, a = (np.asarray(apply_alone(way, x, 8, (32, 40))) for way in (training.resize, make_learned(choose_even)))
    np.testing.assert_allclose(resized[:, 4:-4, 4:-4], a[:, 4:-4, 4:-4], atol=1e-5)
    assert np.abs(resized[:, :4] - a[:, :4]).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("size", [(64, 64), (72, 95)])
def test_a_resnet_derives_the_odd_setting(size):
    """With random parameters in the heads, equal logits mean equal kernels in equal places."""
    study = training.STUDIES["smoke"]
    images = jax.random.normal(jax.random.key(0), (1, *size, 3))

    def logits(way: training.Upsampling | None) -> jax.Array:
        model = training.build_network(study, training.Variant(way), 4)
        variables = dict(jax.jit(model.init)(jax.random.key(1), images))
        leaves, tree = jax.tree.flatten(variables["params"])
        keys = jax.random.split(jax.random.key(2), len(leaves))
        drawn = [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
        return jnp.asarray(jax.jit(model.apply)({**variables, "params": jax.tree.unflatten(tree, drawn)}, images))

    derived = logits(None)
    np.testing.assert_allclose(logits(make_learned(choose_odd)), derived, atol=1e-4 * float(jnp.abs(derived).max()))
    naive = logits(make_learned(choose_even))
    assert naive.shape == derived.shape
    assert jnp.abs(naive - derived).max() > 0.1 * jnp.abs(derived).max()


def test_checkerboard_energy():
    ramp = np.broadcast_to(np.arange(32.0)[:, None] + np.arange(32.0), (2, 32, 32))[..., None]
    assert training.measure_checkerboard(ramp, 8) == 0
    tiles = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    assert training.measure_checkerboard(tiles, 8) == pytest.approx(7**0.5)


def call(out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "run.py"), *words, "--out", str(out)]
    # The second of two runs loads the programs that the first one compiled.
    environment = {
        **os.environ,
        "XLA_FLAGS": FAST_COMPILE,
        "JAX_COMPILATION_CACHE_DIR": str(out / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_short_study_and_its_continuation(tmp_path):
    """A finished run is kept. A run whose rows are missing is made again, with the same result."""
    cache = tmp_path / "cache"
    prepare("shapes", None, cache)
    words = ("shapes", "--smoke", "--data-cache", str(cache))
    first = call(tmp_path, *words)
    assert first.returncode == 0, first.stderr
    file = tmp_path / "results.csv"
    rows = training.read_rows(file)
    assert [(row["variant"], row["step"]) for row in rows] == [("a", "2"), ("b", "2")]
    names = {f"smoke_{plot}.{kind}" for plot in ("curves", "final") for kind in ("png", "svg")}
    assert names | {"smoke.md"} <= {path.name for path in tmp_path.iterdir()}
    training.write_rows(file, rows[:1])
    second = call(tmp_path, *words)
    assert second.returncode == 0, second.stderr
    assert "smoke a seed 0: already done" in second.stdout
    assert "smoke b seed 0: mean IU" in second.stdout
    again = training.read_rows(file)
    assert again[0] == rows[0]
    assert {**again[1], "seconds": ""} == {**rows[1], "seconds": ""}


@pytest.mark.slow
def test_a_short_form_of_the_responses(tmp_path):
    result = call(tmp_path, "response", "--smoke")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "settings.csv").read_text().startswith("factor,kernel,stride,padding,output_padding,shift")
    assert (tmp_path / "responses_x8.png").stat().st_size > 10_000


def test_an_unknown_variant_is_refused(tmp_path):
    result = call(tmp_path, "shapes", "--smoke", "--variants", "c")
    assert result.returncode != 0
    assert "unknown variants c; choose from a, b" in result.stderr


@pytest.mark.parametrize("study", ["shapes", "camvid"])
def test_the_tables_show_the_results(study):
    rows = [row for row in training.read_rows(HERE / "results.csv") if row["study"] == study]
    table = report.format_table(rows)
    assert (HERE / f"{study}.md").read_text() == table
    assert table in (HERE / "README.md").read_text()


@pytest.mark.parametrize("name", ["named", "costs"])
def test_the_readme_has_the_tables_of_the_responses(name):
    assert (HERE / f"{name}.md").read_text() in (HERE / "README.md").read_text()
