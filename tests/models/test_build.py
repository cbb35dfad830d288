"""Networks built from configurations: every backbone, its attributes, and every head."""

import typing

import jax
import jax.numpy as jnp
import pytest

from fcn_jax.config import ModelConfig
from fcn_jax.models.backbones import BACKBONES
from fcn_jax.models.build import build
from fcn_jax.models.dilated import DilatedFCN
from fcn_jax.models.fcn import FCN

NAMES = typing.get_args(typing.get_type_hints(ModelConfig)["backbone"])


def test_configuration_has_every_backbone():
    assert set(NAMES) == set(BACKBONES)


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_is_built_with_its_defaults(name):
    model = build(ModelConfig(backbone=name, head="fcn16s", skip_scales=(0.5, 0.25), upsampling="fixed"), 5)
    assert isinstance(model, FCN)
    assert (model.num_classes, model.stride, model.skip_scales, model.upsampling) == (5, 16, (0.5, 0.25), "fixed")
    assert model.backbone == BACKBONES[name]()


@pytest.mark.parametrize(
    ("config", "attributes"),
    [
        (ModelConfig(backbone="resnet50", output_stride=16, freeze_bn=True), {"output_stride": 16, "freeze_bn": True}),
        (ModelConfig(backbone="vgg16_bn", freeze_bn=True), {"freeze_bn": True, "with_bn": True}),
        (
            ModelConfig(backbone="googlenet_bn", freeze_bn=True, padding="reference"),
            {"freeze_bn": True, "with_bn": True, "padding": "reference"},
        ),
        (
            ModelConfig(backbone="vgg19", fc_features=64, fc_kernel=3, padding="reference"),
            {"fc_features": 64, "fc_kernel": 3, "padding": "reference"},
        ),
        (
            ModelConfig(backbone="alexnet", fc_features=64, padding="reference"),
            {"fc_features": 64, "padding": "reference"},
        ),
        (ModelConfig(backbone="vgg16", dtype="bfloat16"), {"dtype": jnp.bfloat16}),
    ],
)
def test_backbones_get_the_attributes_of_the_configuration(config, attributes):
    backbone = build(config, 3).backbone
    assert {name: getattr(backbone, name) for name in attributes} == attributes


def test_the_dilated_head_stays_at_stride_8():
    model = build(ModelConfig(head="dilated", backbone="resnet50", freeze_bn=True), 3)
    assert isinstance(model, DilatedFCN)
    assert model.backbone.output_stride == 8
    assert model.backbone.freeze_bn


@pytest.mark.parametrize("config", [ModelConfig(), ModelConfig(head="dilated")])
def test_parameters_have_the_paths_of_weights(config):
    variables = jax.eval_shape(build(config, 3).init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    assert "layer4_2" in variables["params"]["backbone"]
    assert "layer4_2" in variables["batch_stats"]["backbone"]
