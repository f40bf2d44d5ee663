"""Make the splits that a dataset lacks, or repair those that show the same pictures.

    python datasets/split.py DATASET [--val 0.2] [--test 0.1] [--group-by COLUMN | --blocks 20] [--seed 0]

DATASET is a descriptor (YAML) or a COCO annotation file (JSON). What it has no split of is made from train: val always,
test with --test. Of splits that share nearly the same pictures (or a patient, with --group-by patient), as few images
as possible are moved. --anew divides all images again.

Nearly the same pictures (resized, saved again, next frame) are never in two splits, nor are images with one value in
the column. Each class is shared out as the images are, rare classes first. The same arguments give the same splits.

Written are a COCO file for each split, beside that of train, and a descriptor to train with. Nothing is overwritten.
"""

import argparse
import json
import re
from pathlib import Path

import numpy as np
from command_line import count
from split_files import Pool, check_new, read_pool, targets, write_splits
from split_plan import kept_images, plan_splits, print_moves, print_shortcomings, print_table

from detector.data.descriptor import Descriptor, Split, descriptor_of, is_annotation_file
from detector.data.image_files import inspect_all
from detector.data.similar_images import equal_groups, nearly_all_alike, similar_groups
from detector.data.splitting import join_groups
from detector.utils.cli import ArgumentParser, run
from detector.utils.disk import check_writable
from detector.utils.errors import InputError
from detector.utils.nearest import did_you_mean
from detector.utils.text import command, counted

DEFAULT_VAL = 0.2
MOST_IMAGES = 10**9


def size(text: str) -> float:
    """An argparse type: a fraction between 0 and 1, or a whole number of images."""
    value = float(text)
    if not (0 < value < 1 or (1 <= value < MOST_IMAGES and value.is_integer())):
        raise argparse.ArgumentTypeError(f"{text} is neither a fraction, such as 0.2, nor a number of images")
    return value


def group_images(pool: Pool, column: str | None, blocks: int | None) -> np.ndarray:
    """(I,) int64: the group of each image; a group stays together. Prints what groups there are.

    column, blocks: see the options. Raises InputError where groups would be of no use.
    """
    paths = [pool.path(i) for i in range(len(pool.images))]
    files = list(inspect_all(paths, "the dataset"))
    unread = sum(file.stored is None for file in files)
    if unread:
        print(f"warning: {unread} of {len(files)} images could not be read, so nothing is known of their likeness")
    one_file, similar = labels(paths), similar_groups(files)
    alike = nearly_all_alike(similar)
    if blocks:
        return join_groups(one_file, equal_groups(files), consecutive_blocks(paths, blocks))
    if column:
        given = labels(column_values(pool, column))
        print(f"{column}: {counted(int(given.max()) + 1, 'value')}, each in one split only")
        if alike:
            print(f"nearly all images look alike, as those of one fixed camera do: only {column} keeps them together")
            return join_groups(one_file, equal_groups(files), given)
        return join_groups(one_file, similar, given)
    if alike:
        raise InputError(
            f"{pool.descriptor.path}: {np.bincount(similar).max()} of {len(files)} images look nearly the same, as "
            "those of one fixed camera do, so likeness cannot tell scenes apart; name a column of `images` that can "
            "with --group-by, or keep consecutive images together, by file name, with --blocks 20"
        )
    sizes = np.bincount(similar)
    alike_images, alike_groups = sizes[sizes > 1].sum(), (sizes > 1).sum()
    print(f"of {len(files)} images, {alike_images} look nearly like others; groups that stay whole: {alike_groups}")
    return join_groups(one_file, similar)


def labels(values: list) -> np.ndarray:
    """(I,) int64: equal values get equal numbers, from 0 on."""
    numbers: dict = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def column_values(pool: Pool, column: str) -> list[str]:
    """The value of each image in a column of `images`, as JSON. Raises InputError where an image has none."""
    without = [image["file_name"] for image in pool.images if image.get(column) is None]
    if without:
        known = sorted({key for image in pool.images for key in image} - {"id", "file_name", "width", "height"})
        raise InputError(
            f"--group-by {column}: {len(without)} of {len(pool.images)} images have no `{column}`, such as "
            f"{without[0]}; {did_you_mean(column, known)}"
        )
    return [json.dumps(image[column], sort_keys=True) for image in pool.images]


def consecutive_blocks(paths: list[Path], blocks: int) -> np.ndarray:
    """(I,) int64: the block of each image. Images are in the order of their names, numbers in these by their value."""
    keys = [[(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", str(p))] for p in paths]
    order = sorted(range(len(paths)), key=keys.__getitem__)
    block = np.empty(len(paths), np.int64)
    for number, own in enumerate(np.array_split(np.array(order), min(blocks, len(order)))):
        block[own] = number
    return block


def read_descriptor(options: argparse.Namespace) -> Descriptor:
    """The dataset of the command line. Raises InputError if it has no train, or --images is of no use."""
    descriptor = descriptor_of(options.dataset)
    if options.images and not is_annotation_file(descriptor):
        raise InputError(f"--images: {options.dataset} names the images' folders itself; give it with a JSON file only")
    if options.images:
        descriptor.splits["train"] = Split(options.images, descriptor.splits["train"].annotations)
    descriptor.named("train")
    return descriptor


def wanted_sizes(descriptor: Descriptor, pool: Pool, options: argparse.Namespace) -> dict[str, float]:
    """Split → fraction or number of images, of those to make. Raises InputError for the size of one that is there."""
    sizes = {}
    for name, given, default in (("val", options.val, DEFAULT_VAL), ("test", options.test, None)):
        there = name in descriptor.splits
        if given and there and not options.anew:
            raise InputError(
                f"--{name}: {descriptor.path} has a {name} split; without this option it is repaired, and with --anew "
                "all images are divided again"
            )
        if there and not options.anew:
            continue
        if value := given or (pool.splits.count(name) if there else default):
            sizes[name] = value
    return sizes


def parse_options() -> argparse.Namespace:
    parser = ArgumentParser(__doc__)
    parser.add_argument("dataset", metavar="DATASET", help="dataset descriptor (YAML) or annotation file (JSON)")
    parser.add_argument("--val", type=size, metavar="SIZE", help="fraction or number of train's images (default: 0.2)")
    parser.add_argument(
        "--test", type=size, metavar="SIZE", help="fraction or number of train's images (default: none)"
    )
    grouping = parser.add_mutually_exclusive_group()
    grouping.add_argument("--group-by", metavar="COLUMN", help="column of `images`, such as patient, to keep together")
    grouping.add_argument(
        "--blocks",
        type=count,
        metavar="N",
        help="keep together consecutive images by file name, in N blocks, instead of alike ones: for one fixed camera",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other splits (default: %(default)s)")
    parser.add_argument("--anew", action="store_true", help="divide the images of all splits again")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="of a JSON's images (default: the JSON's folder)")
    parser.add_argument("--out", type=Path, metavar="YAML", help="descriptor to write (default: <DATASET>_split.yaml)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier result")
    return parser.parse_args()


def main():
    options = parse_options()
    descriptor = read_descriptor(options)
    pool = read_pool(descriptor)
    sizes = wanted_sizes(descriptor, pool, options)
    out = options.out or descriptor.path.with_name(f"{descriptor.path.stem}_split.yaml")
    files = targets(pool, out, [*pool.trees, *sizes])
    if not options.overwrite:
        check_new([out, *files.values()])
    for folder in {file.parent for file in (out, *files.values())}:
        check_writable(folder)
    groups = group_images(pool, options.group_by, options.blocks)
    plan = plan_splits(pool, groups, sizes, options.anew, options.seed)
    kept = kept_images(pool, plan)
    print_moves(pool, plan, kept)
    print_table(pool, plan, kept)
    print_shortcomings(pool, plan, groups, options.anew)
    if not sizes and kept.all() and (plan.before == plan.parts).all():
        print("no group is in two splits, so there is nothing to repair, and nothing was written")
        return
    members = {name: np.flatnonzero(kept & (plan.parts == part)).tolist() for part, name in enumerate(plan.names)}
    write_splits(pool, out, files, members)
    for file in files.values():
        print(file)
    print(f"{out}: the descriptor; {command('tools/doctor.py', out)}")


if __name__ == "__main__":
    run(main)
