"""The presets of recipes that others than the reference have published."""

from fcn_jax.config import AugmentConfig, Config, DataConfig, ModelConfig, OptimConfig, RunOptions
from fcn_jax.presets.preset import Preset

OTHERS = {
    # The article gives rate, decay and backbone, but no momentum; PyTorch's default is 0. The steps are 60 epochs.
    "voc-resnet34": Preset(
        "FCN-8s on a ResNet34 trained on ImageNet, on VOC's 1464 images",
        Config(
            model=ModelConfig(head="fcn8s", backbone="resnet34", weights="imagenet"),
            data=DataConfig("voc2012"),
            optim=OptimConfig(learning_rate=0.03, schedule="constant", momentum=0.0, weight_decay=1e-2),
            steps=11_000,
            batch_size=8,
        ),
        RunOptions(eval_every=1_000),
        source="an article that re-implements the paper",
        published="53 to 56 on val, time unknown",
    ),
    # As in torchvision, only the auxiliary head learns ten times as fast. The steps are 30 epochs. Two things differ:
    # torchvision resizes the shorter side to 0.5 to 2 times 520 pixels, and this preset to 0.5 to 2 times its own
    # length. torchvision also decays batch norms and biases.
    "voc-dilated": Preset(
        "torchvision's FCN on a dilated ResNet50",
        Config(
            model=ModelConfig(head="dilated", backbone="resnet50", weights="imagenet"),
            data=DataConfig("voc2012", train_split="trainaug"),
            augment=AugmentConfig(crop=480, scale=(0.5, 2.0)),
            optim=OptimConfig(
                learning_rate=0.02,
                warmup_steps=0,
                weight_decay=1e-4,
                clip_norm=0.0,
                rate_factors=(("aux_classifier", 10.0),),
            ),
            steps=10_000,
            batch_size=32,
        ),
        RunOptions(eval_every=1_000),
        source="references/segmentation/train.py of torchvision",
        published="60.5 on COCO's val (torchvision), 67.1 on VOC + SBD (mmseg, whose V100 computes 23 images/s)",
    ),
}
