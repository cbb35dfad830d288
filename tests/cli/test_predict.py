"""`fcn-jax predict`."""

import numpy as np
from PIL import Image


def test_predict_writes_masks_and_overlays_at_each_images_size(place, undisturbed):
    folder, _ = undisturbed
    images = sorted((place.root / "data" / "images" / "tiny").iterdir())
    output = place.run("predict", folder.name, images[0], place.root / "data/images/tiny", "--out", "out")
    out = place.root / "out"
    names = sorted(name for image in images for name in (f"{image.stem}.png", f"{image.stem}_overlay.png"))
    assert sorted(path.name for path in out.iterdir()) == names
    assert "3 images in " in output
    for image in images:
        assert f"out/{image.stem}.png" in output
        with Image.open(out / f"{image.stem}.png") as mask, Image.open(image) as photograph:
            assert mask.mode == "P"
            assert mask.size == photograph.size
            assert set(np.unique(np.asarray(mask))) <= {0, 1}
            assert mask.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
            with Image.open(out / f"{image.stem}_overlay.png") as overlay:
                assert overlay.size == photograph.size
                differs = (np.asarray(overlay) != np.asarray(photograph)).any(axis=-1)
            assert not differs.all()
            assert differs[np.asarray(mask) == 1].all()
