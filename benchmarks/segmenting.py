"""The sides of inference.py: images to class maps and files to PNGs, ours and PyTorch's, for workers (separate.py)."""

import copy
import os
from collections.abc import Callable
from pathlib import Path

from pytorch_networks import CLASSES, torch_fcn8s
from separate import alone, mean_seconds

HEIGHT, WIDTH = 375, 500
Functions = dict[str, Callable[[], object]]


def ours(batch: int, dtype: str) -> Functions:
    """Prepare the program's own forward pass, from uint8 images to class maps."""
    import jax
    import numpy as np

    from fcn_jax.data.canvas import Batch

    forward, variables = ours_network("vgg16", dtype)
    data = Batch(
        np.random.default_rng(0).integers(0, 256, (batch, HEIGHT, WIDTH, 3), np.uint8),
        np.zeros((batch, HEIGHT, WIDTH), np.uint8),
        np.full((batch, 2), (HEIGHT, WIDTH), np.int32),
    )
    data = jax.device_put(data)

    def segment() -> None:
        jax.block_until_ready(forward(variables, data))

    with alone():
        segment()  # compiles
    return {"segment": segment}


def pytorch(batch: int, dtype: str) -> Functions:
    """Prepare the network on normalized images, in the memory format that is faster."""
    import torch

    model, device, context = torch_network("vgg16", dtype)
    cuda = device == "cuda"
    images = torch.randn(batch, 3, HEIGHT, WIDTH, device=device)

    def prepare(form: torch.memory_format) -> Callable[[], None]:
        call = copy.deepcopy(model).to(memory_format=form)
        call = torch.compile(call) if cuda else call
        placed = images.to(memory_format=form)

        def segment() -> None:
            with torch.inference_mode(), context():
                call(placed).argmax(dim=1)
            if cuda:
                torch.cuda.synchronize()

        segment()  # compiles, with all cases at once
        return segment

    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True  # what cuDNN chooses so is not found again when it may time
    calls = [prepare(form) for form in (torch.contiguous_format, torch.channels_last)]
    torch.backends.cudnn.deterministic = False
    with alone():  # cuDNN times its algorithms
        torch.backends.cudnn.benchmark = True
        for call in calls:
            call()
        return {"segment": min(calls, key=lambda call: mean_seconds(call, 3))}


def ours_reference() -> Functions:
    """Prepare the reference's network, from a normalized image to scores."""
    import jax
    import jax.numpy as jnp

    from fcn_jax.layers import jit_options
    from fcn_jax.models.reference import NETWORKS

    model = NETWORKS["voc-fcn8s"]
    images = jax.random.normal(jax.random.key(0), (1, HEIGHT, WIDTH, 3))
    variables = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 32, 32, 3)))
    apply = jax.jit(model.apply, **jit_options(training=False))
    return {"score": lambda: jax.block_until_ready(apply(variables, images))}


def ours_folder(images: str, out: str, cache: str) -> Functions:
    """Prepare a pass from files to PNGs. The first pass of a process compiles, or finds its programs in `cache`."""
    from fcn_jax.data.labels import palette
    from fcn_jax.inference.outputs import Outputs
    from fcn_jax.inference.predict import find_images, predict
    from fcn_jax.inference.segment import default_batch_size, segment
    from fcn_jax.runtime.compile_cache import keep_compiled

    keep_compiled(Path(cache))
    forward, variables = ours_network("resnet34", "float32")
    files, batch_size = find_images([images]), default_batch_size(None)

    def write_all() -> None:
        results = predict(
            lambda examples, sizes: segment(forward, variables, examples, batch_size, sizes=sizes),
            files,
            Path(out),
            Outputs(palette(CLASSES)),
        )
        assert len(list(results)) == len(files)

    return {"pass": write_all}


def pytorch_folder(images: str, out: str) -> Functions:
    """Prepare a pass from files to PNGs by a plain loop."""
    import numpy as np
    import torch
    from PIL import Image

    model, device, _ = torch_network("resnet34", "float32")
    model = model.to(memory_format=torch.channels_last)
    Path(out).mkdir(exist_ok=True)
    mean, deviation = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in ((124.0, 117, 104), (58.4, 57.1, 57.4)))
    files = sorted(Path(images).iterdir())

    def write_all() -> None:
        for file in files:
            with Image.open(file) as picture:
                pixels = np.array(picture.convert("RGB"))
            image = torch.from_numpy(pixels).to(device).permute(2, 0, 1)[None]
            image = ((image.float() - mean) / deviation).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode():
                classes = model(image).argmax(dim=1)[0].to(torch.uint8).cpu().numpy()
            Image.fromarray(classes).save(Path(out, f"{file.stem}.png"))

    return {"pass": write_all}


def ours_network(backbone: str, dtype: str):
    """Make the forward pass without labels, and random variables whose classes vary."""
    import jax
    import jax.numpy as jnp

    from fcn_jax.config import ModelConfig
    from fcn_jax.inference.segment import make_forward
    from fcn_jax.models.build import build

    config = ModelConfig(backbone=backbone, dtype=dtype)
    model = build(config, CLASSES)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    for name in ("score_fr", "score_pool4", "score_pool3"):  # they start at zero
        kernel = variables["params"][name]["kernel"]
        variables["params"][name]["kernel"] = jax.random.normal(jax.random.key(1), kernel.shape) * 0.02
    return make_forward(model, config.input_or_default, labelled=False), variables


def torch_network(backbone: str, dtype: str):
    """Make the peer's network, ready to infer; return it with its device and the context to call it in."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = True  # as JAX does, and as cuDNN's convolutions do
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = torch_fcn8s(backbone).eval().to(device)
    return model, device, lambda: torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
