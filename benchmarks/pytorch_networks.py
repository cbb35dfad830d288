"""FCN-8s and the dilated FCN in PyTorch, the peers of several benchmarks."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from torchvision_peer import import_torchvision

CLASSES = 21


def torch_fcn8s(backbone: str, classes: int = CLASSES):
    """Build the network of `fcn_jax.models.fcn.FCN8s` on "vgg16", "resnet34" or "resnet50" in PyTorch."""
    import torch
    from torch import nn

    def vgg() -> tuple[list[nn.Module], tuple[int, int, int]]:
        parts, ins, layers = [], 3, []
        for stage, (outs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            for _ in range(depth):
                layers += [nn.Conv2d(ins, outs, 3, padding=1), nn.ReLU(inplace=True)]
                ins = outs
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            if stage in (2, 3):
                parts.append(nn.Sequential(*layers))
                layers = []
        layers += [nn.Conv2d(512, 4096, 7, padding=3), nn.ReLU(inplace=True), nn.Dropout()]
        layers += [nn.Conv2d(4096, 4096, 1), nn.ReLU(inplace=True), nn.Dropout()]
        return [*parts, nn.Sequential(*layers)], (256, 512, 4096)

    class Block(nn.Module):
        def __init__(self, ins: int, outs: int, stride: int):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(ins, outs, 3, stride, 1, bias=False), nn.BatchNorm2d(outs)
            self.conv2, self.bn2 = nn.Conv2d(outs, outs, 3, 1, 1, bias=False), nn.BatchNorm2d(outs)
            plain = stride == 1 and ins == outs
            shortcut = [nn.Conv2d(ins, outs, 1, stride, bias=False), nn.BatchNorm2d(outs)]
            self.shortcut = nn.Identity() if plain else nn.Sequential(*shortcut)

        def forward(self, x):
            y = torch.relu(self.bn1(self.conv1(x)))
            return torch.relu(self.bn2(self.conv2(y)) + self.shortcut(x))

    def resnet() -> tuple[list[nn.Module], tuple[int, int, int]]:
        layers = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        parts, ins = [], 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            for index in range(depth):
                outs = 64 * 2**stage
                layers.append(Block(ins, outs, 2 if stage and not index else 1))
                ins = outs
            if stage:
                parts.append(nn.Sequential(*layers))
                layers = []
        return parts, (128, 256, 512)

    def resnet50() -> tuple[list[nn.Module], tuple[int, int, int]]:
        net = import_torchvision().models.resnet50()
        fine = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2)
        return [fine, net.layer3, net.layer4], (512, 1024, 2048)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            parts, channels = {"vgg16": vgg, "resnet34": resnet, "resnet50": resnet50}[backbone]()
            self.parts = nn.ModuleList(parts)
            self.scores = nn.ModuleList(nn.Conv2d(c, classes, 1) for c in channels)

            # As in `fcn_jax.models.fcn.alignment`: even kernels on VGG, odd ones on ResNet.
            def up(factor: int) -> nn.Module:
                kernel = 2 * factor if backbone == "vgg16" else 2 * factor - 1
                padding, extra = (factor // 2, 0) if backbone == "vgg16" else (factor - 1, factor - 1)
                return nn.ConvTranspose2d(classes, classes, kernel, factor, padding, extra, bias=False)

            self.up = nn.ModuleList(up(factor) for factor in (2, 2, 8))

        def forward(self, x):
            height, width = x.shape[2:]
            maps = []
            for part in self.parts:
                maps.append(x := part(x))
            y = self.scores[2](maps[2])
            for index in (1, 0):
                finer = self.scores[index](maps[index])
                y = self.up[1 - index](y)[:, :, : finer.shape[2], : finer.shape[3]] + finer
            return self.up[2](y)[:, :, :height, :width]

    return Net()


def torch_dilated():
    """Build torchvision's `fcn_resnet50`, the network of `fcn_jax.models.dilated.DilatedFCN`.

    In training it returns the scores and the auxiliary scores. Otherwise it returns the scores alone, while torchvision
    computes the auxiliary ones too.
    """
    from torch import nn

    whole = import_torchvision().models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=True
    )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.heads = whole.backbone, nn.ModuleList((whole.classifier, whole.aux_classifier))

        def forward(self, x):
            maps = self.backbone(x)

            def score(head: nn.Module, name: str):
                return nn.functional.interpolate(head(maps[name]), x.shape[2:], mode="bilinear", align_corners=False)

            main = score(self.heads[0], "out")
            return (main, score(self.heads[1], "aux")) if self.training else main

    return Net()
