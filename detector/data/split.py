"""One split of the dataset that a configuration names: descriptor → annotation file → checked arrays."""

from __future__ import annotations

from collections.abc import Sequence

from detector.config.schema import Config
from detector.data.coco import CocoData, check_images_exist, read_coco
from detector.data.descriptor import load_descriptor


def read_split(
    config: Config,
    name: str,
    class_names: Sequence[str] | None = None,
    *,
    dataset: str | None = None,
    check_images: bool = True,
) -> CocoData:
    """Read and check the split `name` (train, val or test); bad boxes are treated as `data.bad_annotations` says.

    class_names: the classes to keep, in the order of the labels, such as those of the training split or of a detector;
        None = those of the descriptor, or all of the annotation file's.
    dataset: another descriptor than `data.dataset`.
    check_images: whether every image file must exist. This lists folders and opens no image.

    Raises InputError where the descriptor, the annotation file or an image is missing or wrong (see `load_descriptor`,
    `read_coco` and `check_images_exist`).
    """
    descriptor = load_descriptor(dataset or config.data.dataset)
    kept = descriptor.classes if class_names is None else list(class_names)
    data = read_coco(descriptor.split(name), kept, config.data.bad_annotations, name)
    if check_images:
        check_images_exist(data)
    return data
