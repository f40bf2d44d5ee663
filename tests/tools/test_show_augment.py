"""tools/show_augment.py draws what mixing makes of training images."""

import numpy as np
from PIL import Image


def test_mixed_images_are_drawn(succeeds, tiny_config, tmp_path):
    output = tmp_path / "new" / "augment.png"
    said = succeeds("show_augment", tiny_config, "augment.mosaic=1", "--images", "3", "--output", output)
    assert said == "mosaic: 100% of the images up to epoch 1\n"
    assert len(np.unique(np.asarray(Image.open(output)))) > 100


def test_imbalance_auto_decides_what_is_pasted(succeeds, tiny_config, tmp_path):
    options = ("imbalance=auto", "augment.mixup=1", "--output", tmp_path / "augment.jpg")
    assert succeeds("show_augment", tiny_config, *options).startswith("imbalance auto: ")


def test_nothing_to_draw_is_said(fails, tiny_config, tmp_path):
    output = tmp_path / "augment.jpg"
    assert "no image is changed; try augment.paste={}" in fails("show_augment", tiny_config, "--output", output)
    assert not output.exists()
