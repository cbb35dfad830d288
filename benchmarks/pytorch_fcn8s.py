"""FCN-8s in PyTorch, the peer of several benchmarks."""

CLASSES = 21


def torch_fcn8s(backbone: str):
    """Build the network of `fcn_jax.models.fcn.FCN8s` on "vgg16" or "resnet34" in PyTorch."""
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

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            parts, channels = vgg() if backbone == "vgg16" else resnet()
            self.parts = nn.ModuleList(parts)
            self.scores = nn.ModuleList(nn.Conv2d(c, CLASSES, 1) for c in channels)

            # As in `fcn_jax.models.fcn.alignment`: even kernels on VGG, odd ones on ResNet.
            def up(factor: int) -> nn.Module:
                kernel = 2 * factor if backbone == "vgg16" else 2 * factor - 1
                padding, extra = (factor // 2, 0) if backbone == "vgg16" else (factor - 1, factor - 1)
                return nn.ConvTranspose2d(CLASSES, CLASSES, kernel, factor, padding, extra, bias=False)

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
