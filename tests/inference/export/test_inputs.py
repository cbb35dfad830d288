"""Exported programs of networks on several inputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export as jax_export
from random_variables import draw_variables
from small_runs import Tiny

from fcn_jax.data.augment import normalise
from fcn_jax.data.inputs import COLOUR, describe_inputs
from fcn_jax.data.labels import palette
from fcn_jax.data.sources.nyud import DEPTH, HHA
from fcn_jax.data.tasks import Task
from fcn_jax.inference.export.card import write_use
from fcn_jax.inference.export.onnx_file import make_onnx
from fcn_jax.inference.export.program import make_program, make_scores
from fcn_jax.inference.export.stablehlo_file import make_stablehlo
from fcn_jax.models.fcn import FCN32s
from fcn_jax.models.reference import LateFusion

NET = FCN32s(4, Tiny(), upsampling="fixed")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        pytest.param(NET, (COLOUR, DEPTH), id="early"),
        pytest.param(LateFusion(NET), (COLOUR, HHA), id="late"),
    ],
)
def test_programs_take_the_channels_of_all_inputs(model, inputs, tmp_path, monkeypatch, capsys):
    given = dataclasses.replace(describe_inputs(inputs), order="bgr")
    image = np.random.default_rng(0).integers(0, 256, (2, 40, 70, given.num_channels)).astype(given.dtype)
    if given.log:
        image[..., 3] *= 20
    variables = jax.tree.map(jnp.asarray, draw_variables(model, jnp.zeros((1, 8, 8, given.num_channels))))
    expected = np.asarray(jax.nn.softmax(model.apply(variables, normalise(jnp.asarray(image), given))))
    scores = make_scores(model, given)
    onnx = make_onnx(scores, variables, [Task("", tuple("abcd"), palette(4))], True, given)
    session = onnxruntime.InferenceSession(onnx.SerializeToString())
    stablehlo = make_stablehlo(make_program(scores, variables, (4,), probabilities=True), given)
    program = jax_export.deserialize(bytearray(stablehlo))
    for class_map, probabilities in (session.run(None, {"image": image}), map(np.asarray, program.call(image))):
        np.testing.assert_allclose(probabilities, expected, atol=1e-4)
        assert (class_map == expected.argmax(-1)).mean() > 0.99
    monkeypatch.chdir(tmp_path)
    np.save("image.npy", image[0])
    onnx.metadata_props.add(key="class_names", value="a\nb\nc\nd")
    for name, data in (("model.onnx", onnx.SerializeToString()), ("model.stablehlo", stablehlo)):
        (tmp_path / name).write_bytes(data)
        exec(write_use(name, [""], given), {})
        shares = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
        counts = np.bincount(expected[0].argmax(-1).ravel())
        np.testing.assert_allclose(shares, counts[counts > 0] / counts.sum(), atol=0.01)
