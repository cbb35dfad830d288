"""Official weights of torchvision's classifiers, trained on ImageNet, for backbones to start from."""

from pathlib import Path

from fcn_jax.errors import InputError
from fcn_jax.runtime.download import download
from fcn_jax.runtime.files import sha256

SERVER = "https://download.pytorch.org/models"
# Names as in torchvision's model files. The eight digits are the first ones of the file's SHA-256.
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
    """Download the file of a backbone unless the cache has it.

    Only the first eight digits of the SHA-256 are known, from the file's name. They protect against damage, not against
    forgery. Reading the file runs no code in any case.

    Args:
        backbone: name of the backbone.
        cache: the folder of everything prepared; the file goes to its subfolder "weights".

    Returns:
        The path of the file.

    Raises:
        InputError: there are no official weights of this backbone, the download fails, or the file has another
            checksum. The text says how to place the file by hand.
    """
    if backbone not in FILES:
        raise InputError(
            f"there are no official ImageNet weights for {backbone}, only for {', '.join(FILES)}; "
            "choose one of these, or give a file with --model.weights FILE"
        )
    name = FILES[backbone]
    digits = name.removesuffix(".pth").rsplit("-", 1)[1]
    file = download(f"{SERVER}/{name}", cache / "weights" / name, digits)
    # The checksum is verified every time, because the file may have been placed there by hand.
    found = sha256(file)
    if not found.startswith(digits):
        raise InputError(
            f"{file} has the SHA-256 {found}, and that of torchvision's file begins with {digits}; delete it to "
            "download it again, or give another file with --model.weights FILE"
        )
    return file
