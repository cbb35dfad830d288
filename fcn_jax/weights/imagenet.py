"""The official weights of torchvision's classifiers, trained on ImageNet, as starts of backbones."""

from pathlib import Path

from fcn_jax.errors import InputError
from fcn_jax.runtime.download import download
from fcn_jax.runtime.files import sha256

SERVER = "https://download.pytorch.org/models"
# torchvision's model files name them; the eight digits are the first ones of each file's SHA-256.
FILES = {
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "vgg19": "vgg19-dcbb9e9d.pth",
    "vgg19_bn": "vgg19_bn-c79401a0.pth",
    "googlenet_bn": "googlenet-1378be20.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}


def fetch_weights(backbone: str, cache: Path) -> Path:
    """The file of a backbone, downloaded unless it is there.

    Only the first eight digits of its SHA-256 are known, from its name: enough against damage, not against malice;
    reading it runs no code in any case.

    Args:
        backbone: its name.
        cache: the folder of downloads.

    Raises:
        InputError: there is no such file, or it cannot be fetched; the text says how to place it by hand.
    """
    if backbone not in FILES:
        raise InputError(
            f"there are no official ImageNet weights for {backbone} here, but for {', '.join(FILES)}; "
            "give a file by --model.weights"
        )
    name = FILES[backbone]
    digits = name.removesuffix(".pth").rsplit("-", 1)[1]
    file = download(f"{SERVER}/{name}", cache / "weights" / name, digits)
    # Also of what was placed there by hand, or has been there for long.
    found = sha256(file)
    if not found.startswith(digits):
        raise InputError(
            f"{file} has the SHA-256 {found}, and that of torchvision's file begins with {digits}; delete it, and it "
            "is fetched again, or give a file of your own by --model.weights FILE"
        )
    return file
