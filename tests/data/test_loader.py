"""Batches: what is in them, and that neither workers nor resuming change them."""

import pickle

import numpy as np
import pytest
import torch

from detector.config.data import ShortLong
from detector.data.coco import check_images_exist, read_coco
from detector.data.dataset import DetectionDataset
from detector.data.descriptor import load_descriptor
from detector.data.loader import collate, eval_loader, train_loader
from detector.data.transforms import build_transform
from detector.utils.errors import InputError


@pytest.fixture
def data(coco, split_of):
    return read_coco(split_of(coco, images=True))


def _train(data, workers=0, image_size=64, **changes):
    settings = {"transforms": "light", "batch_size": 1, "seed": 3} | changes
    return train_loader(data, image_size=image_size, workers=workers, **settings)


def _plain(batches) -> list:
    """Batches as something that == compares."""
    return [
        (images.tolist(), [{k: v.tolist() if torch.is_tensor(v) else v for k, v in t.items()} for t in targets])
        for images, targets in batches
    ]


def _image_ids(loader) -> list[int]:
    return [target["image_id"] for _, targets in loader for target in targets]


def test_a_sample(data):
    image, target = DetectionDataset(data, build_transform(30, None), seed=0)[0, 0]
    assert image.shape == (3, 30, 30) and image.dtype == torch.uint8
    assert image[0, 19, 29] == 10 and image[0, 20, 29] == 0  # content, then letterbox
    assert target["boxes"].tolist() == [[25, 15, 30, 17.5]] and target["boxes"].dtype == torch.float32
    assert target["labels"].tolist() == [0] and target["labels"].dtype == torch.int64
    assert target["image_id"] == 30
    assert target["orig_size"] == (40, 60) and target["size"] == (20, 30)


def test_collate_pads_to_a_multiple_of_32():
    samples = [(torch.full((3, h, w), 7, dtype=torch.uint8), {"n": h}) for h, w in ((20, 40), (33, 10))]
    images, targets = collate(samples)
    assert images.shape == (2, 3, 64, 64)
    assert [int((image == 7).sum()) for image in images] == [3 * 20 * 40, 3 * 33 * 10]
    assert images[0, 0, 19, 39] == 7 and images[0, 0, 20, 39] == 0 and images[1, 2, 32, 9] == 7
    assert [t["n"] for t in targets] == [20, 33]
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_every_epoch_is_augmented_anew(data):
    dataset = DetectionDataset(data, build_transform(64, "strong"), seed=0)
    assert torch.equal(dataset[0, 1][0], dataset[0, 1][0])
    assert dataset[0, 1][1]["size"] != dataset[1, 1][1]["size"]


def test_an_image_of_another_size_than_the_file_says(data):
    data.heights[0] += 1
    with pytest.raises(InputError, match="a.png: is 60x40 pixels but the annotation file says 60x41"):
        list(eval_loader(data, image_size=64, batch_size=2, workers=0))


def test_evaluation_is_in_the_order_of_the_file(coco, split_of):
    coco["images"] = [{"id": i, "file_name": f"{i}.png", "height": 8, "width": 8} for i in (10, 30, 1, 7, 3, 5)]
    coco["annotations"] = []
    loader = eval_loader(read_coco(split_of(coco, images=True)), image_size=32, batch_size=4, workers=0)
    assert [len(targets) for _, targets in loader] == [4, 2]
    assert _image_ids(loader) == [10, 30, 1, 7, 3, 5]


def test_evaluation_is_without_augmentation(data):
    batches = list(eval_loader(data, image_size=ShortLong(short=40, long=60), batch_size=1, workers=0))
    assert [targets[0]["image_id"] for _, targets in batches] == [30, 10]
    assert [tuple(images.shape) for images, _ in batches] == [(1, 3, 64, 64), (1, 3, 64, 32)]
    assert batches[1][1][0]["size"] == (60, 24)
    assert batches[1][1][0]["boxes"].tolist() == pytest.approx(np.array([[1.2, 2.4, 5.1, 7.2], [6, 7.2, 14.4, 16.8]]))


@pytest.mark.parametrize("image_size", [64, ShortLong(short=[20, 60], long=90)])
def test_batches_are_the_same_for_any_number_of_workers(data, image_size):
    epochs = []
    for workers in (0, 1, 2):
        loader = _train(data, workers, image_size)
        batches = []
        for epoch in range(2):  # the workers live on from the first to the second
            loader.set_position(epoch)
            batches += _plain(loader)
        epochs.append(batches)
    assert len(epochs[0]) == 4
    assert epochs[0] == epochs[1] == epochs[2]
    assert epochs[0][:2] != epochs[0][2:]


def test_resuming_in_mid_epoch_is_an_offset(data):
    whole, resumed = _train(data), _train(data)
    whole.set_position(5)
    resumed.set_position(5, 1)
    assert _plain(resumed) == _plain(whole)[1:]
    assert len(resumed) == len(whole) == 2


def test_the_global_random_state_is_left_alone(data):
    before = torch.get_rng_state()
    list(_train(data))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unusable_image_is_one_sentence_wherever_it_is_read(data, workers):
    (data.images_dir / "b.png").write_bytes(b"\x89PNG broken")
    with pytest.raises(InputError, match=r"^\S*b\.png: cannot be read as an image \([^\n]*\)$"):
        list(_train(data, workers))


def test_a_dataset_can_be_sent_to_spawned_workers(data):
    dataset = DetectionDataset(data, build_transform(64, "strong"), seed=0)
    copied = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copied[1, 0][0], dataset[1, 0][0])


def test_real_photographs(real_data):
    data = read_coco(load_descriptor(real_data("coco_tiny") / "coco_tiny.yaml").split("train"))
    check_images_exist(data)
    loader = train_loader(
        data, image_size=ShortLong(short=100, long=160), transforms="strong", batch_size=8, workers=1, seed=0
    )
    assert sorted(_image_ids(loader)) == sorted(data.image_ids.tolist())
    assert _image_ids(loader) != data.image_ids.tolist()
    ordered = eval_loader(data, image_size=64, batch_size=8, workers=1)
    assert _image_ids(ordered) == data.image_ids.tolist()
