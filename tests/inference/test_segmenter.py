"""`Segmenter`: the network of a run as a function of images."""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from random_network import assert_class_map, examples
from scipy.special import softmax

import fcn_jax
from fcn_jax.data.augment import normalise
from fcn_jax.errors import InputError
from fcn_jax.inference.outputs import Outputs
from fcn_jax.inference.predict import predict
from fcn_jax.inference.segment import segment
from fcn_jax.inference.segmenter import Segmenter
from fcn_jax.inference.trained import load_trained
from fcn_jax.inference.tta import FLIP_AND_SCALES, Views
from fcn_jax.models.build import build
from fcn_jax.runs.restore import restore_variables
from fcn_jax.runs.run_dir import open_run

IMAGE = examples()[0].image


@functools.cache
def open_segmenter(run_dir: Path) -> Segmenter:
    """The same one for several tests, so that its programs are compiled once."""
    return Segmenter.from_run(run_dir)


@functools.cache
def load_network(run_dir: Path, step: int | None):
    run = open_run(run_dir)
    model = build(run.config.model, 3)
    variables, _ = restore_variables(run, model, step)
    return jax.jit(model.apply), variables, run.config.model.input_or_default


def logits_of(run_dir: Path, image: np.ndarray, step: int | None = None) -> np.ndarray:
    """The logits of an image by itself, without padding."""
    apply, variables, input_config = load_network(run_dir, step)
    return np.asarray(apply(variables, normalise(jax.numpy.asarray(image)[None], input_config))[0])


def test_an_image_of_any_size_gets_a_class_map_of_its_size(run_dir):
    segment = open_segmenter(run_dir)
    seen = set()
    for image in (IMAGE, IMAGE[:1, :1], IMAGE[:, ::-2]):
        class_map = segment(image)
        assert_class_map(class_map, logits_of(run_dir, image))
        seen |= set(np.unique(class_map))
    assert len(seen) > 1


def test_several_images_keep_their_order_and_equal_single_ones(run_dir):
    segment = Segmenter.from_run(str(run_dir))
    images = [example.image for example in examples()]
    class_maps = segment(images)
    assert isinstance(class_maps, list)
    for image, class_map in zip(images, class_maps, strict=True):
        np.testing.assert_array_equal(class_map, segment(image))
    assert segment([]) == []
    assert class_maps[0].flags.owndata


def test_probabilities_are_the_softmax_of_the_logits_in_the_order_of_the_images(run_dir):
    segment = open_segmenter(run_dir)
    images = [example.image for example in examples()[:4]]
    found = segment.probabilities(images)
    for image, probabilities in zip(images, found, strict=True):
        assert (probabilities.dtype, probabilities.shape) == (np.float16, (*image.shape[:2], 3))
        np.testing.assert_allclose(probabilities, softmax(logits_of(run_dir, image), axis=-1), atol=1e-3)
    np.testing.assert_array_equal(segment.probabilities(images[0]), found[0])
    assert segment.probabilities([]) == []


@pytest.mark.slow
def test_tta_averages_over_the_views(run_dir):
    mirrored = Segmenter.from_run(run_dir, tta=Views(flip=True))
    alone = Segmenter.from_run(run_dir)
    one, other = alone.probabilities([IMAGE, np.ascontiguousarray(IMAGE[:, ::-1])])
    mean = (one.astype(np.float32) + other[:, ::-1]) / 2
    np.testing.assert_allclose(mirrored.probabilities(IMAGE), mean, atol=1e-3)
    ranked = np.sort(mean, axis=-1)
    clear = ranked[..., -1] - ranked[..., -2] > 2e-3
    np.testing.assert_array_equal(mirrored(IMAGE)[clear], mean.argmax(-1)[clear])
    assert (mirrored(IMAGE) != alone(IMAGE)).any()
    assert Segmenter.from_run(run_dir, tta=True)._views == FLIP_AND_SCALES


@pytest.mark.slow
def test_a_photograph_in_tiles_has_the_class_map_it_has_whole(run_dir):
    image = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    tiled, whole = Segmenter.from_run(run_dir, tile=32), Segmenter.from_run(run_dir, tile=0)
    class_map = tiled(image)
    assert_class_map(class_map, logits_of(run_dir, image))
    assert_class_map(whole(image), logits_of(run_dir, image))
    assert len(np.unique(class_map)) > 1
    assert tiled._tiling.canvas_side < 700
    assert whole._tiling is None


def test_it_has_the_names_and_colours_of_the_classes(run_dir):
    segment = open_segmenter(run_dir)
    assert segment.class_names == ("sky", "sea", "sand")
    np.testing.assert_array_equal(segment.palette, [[0, 0, 0], [128, 0, 0], [0, 128, 0]])


def test_it_equals_what_predict_writes(run_dir, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    run = open_run(run_dir)
    trained = load_trained(run, labelled=False)
    results = lambda examples, sizes: segment(trained.forward, trained.variables, examples, 8)  # noqa: E731
    (file,) = predict(results, [tmp_path / "a.png"], tmp_path / "out", Outputs(run.palette))
    with Image.open(file) as picture:
        np.testing.assert_array_equal(np.asarray(picture), Segmenter.from_run(run_dir)(IMAGE))


@pytest.mark.slow
def test_a_checkpoint_is_chosen_by_its_step(run_dir):
    assert_class_map(Segmenter.from_run(run_dir, step=2)(IMAGE), logits_of(run_dir, IMAGE, step=2))
    assert (Segmenter.from_run(run_dir, step=2)(IMAGE) != Segmenter.from_run(run_dir)(IMAGE)).any()
    with pytest.raises(InputError, match="no checkpoint 3"):
        Segmenter.from_run(run_dir, step=3)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(InputError, match="not a run directory"):
        Segmenter.from_run(tmp_path)


def test_threads_get_the_class_maps_of_their_images(run_dir):
    segment = open_segmenter(run_dir)
    images = [example.image for example in examples()] * 2
    expected, scores = segment(images), segment.probabilities(images)
    with ThreadPoolExecutor(4) as pool:
        for class_map, own in zip(pool.map(segment, images), expected, strict=True):
            np.testing.assert_array_equal(class_map, own)
        for probabilities, own in zip(pool.map(segment.probabilities, images), scores, strict=True):
            np.testing.assert_allclose(probabilities, own, atol=1e-3)


def test_one_canvas_compiles_one_program(run_dir):
    segment = Segmenter.from_run(run_dir)
    for size in (33, 40, 64):
        segment(np.zeros((size, size, 3), np.uint8))
    assert segment._classify._cache_size() == 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(IMAGE), r"type Image;.*np\.asarray"),
        ("cat.jpg", r"type str"),
        (IMAGE.astype(np.float32) / 255, r"dtype float32;.*convert it to uint8"),
        (IMAGE[..., 0], r"shape \(40, 50\);.*np\.stack"),
        (np.zeros((4, 5, 4), np.uint8), r"shape \(4, 5, 4\);.*alpha"),
        (np.zeros((0, 5, 3), np.uint8), r"shape \(0, 5, 3\);.*at least one pixel"),
        (IMAGE[None], r"shape \(1, 40, 50, 3\);.*as a list"),
    ],
)
def test_wrong_images_are_refused(run_dir, image, message):
    segment = open_segmenter(run_dir)
    with pytest.raises(InputError, match=message):
        segment(image)
    with pytest.raises(InputError, match=message):
        segment([IMAGE, image])
    with pytest.raises(InputError, match=message):
        segment.probabilities(image)


def test_it_is_a_public_name():
    assert fcn_jax.Segmenter is Segmenter
