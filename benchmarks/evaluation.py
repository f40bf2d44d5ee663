"""Time of COCO's figures for 5,000 images x 100 detections x 80 classes, beside pycocotools and faster-coco-eval.

    python benchmarks/evaluation.py [--images 5000] [--rounds 2]

The data is synthetic: about 7 objects an image, classes whose counts differ 30:1, 1 % crowds; a third of the detections
lie near an object, the others anywhere. Each evaluator starts from the form it needs (arrays, or COCO's lists of dicts)
and ends with the twelve figures and the AP of every class. They run in turns in one process.
"""

import argparse
import contextlib
import io
import time
from pathlib import Path

import numpy as np

from detector.data.coco import CocoData
from detector.evaluation.detections import Detections, coco_results
from detector.evaluation.metrics.average_precision import SUMMARY, coco_figures, hits_by_class
from detector.evaluation.metrics.bootstrap import DRAWS, draw_images, resampled_ap
from detector.evaluation.metrics.matching import match

CLASSES, OBJECTS, DETECTIONS, SIDE = 80, 7.3, 100, 640


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    data = make_data(rng, args.images)
    detections = make_detections(rng, data)
    print(f"{len(data)} images, {len(data.boxes)} objects, {len(detections.scores)} detections, {CLASSES} classes")
    truth, results = data.to_coco_api(), coco_results(detections, data)
    evaluators = {
        "detector": lambda: ours(detections, data),
        "pycocotools": lambda: peer("pycocotools", truth, results),
        "faster-coco-eval": lambda: peer("faster_coco_eval", truth, results),
    }
    seconds, figures = {name: [] for name in evaluators}, {}
    for _ in range(args.rounds):
        for name, evaluate in evaluators.items():
            start = time.perf_counter()
            figures[name] = evaluate()
            seconds[name].append(time.perf_counter() - start)
    for name in evaluators:
        off = np.abs(np.subtract(figures[name], figures["pycocotools"])).max()
        taken = ", ".join(f"{s:.1f}" for s in seconds[name])
        ratio = np.median(seconds[name]) / np.median(seconds["detector"])
        print(
            f"{name:17} {taken} s: {ratio:5.1f} x the time of ours; AP {figures[name][0]:.4f}, "
            f"largest difference from pycocotools {off:.0e}"
        )
    start = time.perf_counter()
    resampled_ap(hits_by_class(match(detections, data)), draw_images(len(data)))
    print(f"bootstrap         {time.perf_counter() - start:.1f} s for {DRAWS} resamples of the images (no peer)")


def make_data(rng: np.random.Generator, images: int) -> CocoData:
    """Objects with log-normal sides, whose class k is drawn with probability ~ 1 / k^0.8."""
    counts = rng.poisson(OBJECTS, images)
    boxes = np.empty((counts.sum(), 4))
    boxes[:, 2:] = np.exp(rng.normal(4, 1, (len(boxes), 2))).clip(4, 400)
    boxes[:, :2] = rng.random((len(boxes), 2)) * (SIDE - boxes[:, 2:])
    shares = 1 / np.arange(1, CLASSES + 1) ** 0.8
    sizes = np.full(images, SIDE, np.int32)
    return CocoData(
        class_names=[f"class {k}" for k in range(CLASSES)],
        category_ids=np.arange(1, CLASSES + 1),
        images_dir=Path(),
        image_ids=np.arange(1, images + 1),
        heights=sizes,
        widths=sizes,
        names=b"x" * images,
        name_offsets=np.arange(images + 1),
        first=np.append(0, np.cumsum(counts)),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3],
        labels=rng.choice(CLASSES, len(boxes), p=shares / shares.sum()).astype(np.int32),
        iscrowd=rng.random(len(boxes)) < 0.01,
        annotation_ids=np.arange(len(boxes)),
    )


def make_detections(rng: np.random.Generator, data: CocoData) -> Detections:
    """DETECTIONS of each image: a third are shifted objects, with higher scores and mostly the right label."""
    images = np.repeat(np.arange(len(data)), DETECTIONS)
    sizes = np.exp(rng.normal(4, 1, (len(images), 2))).clip(4, 400)
    corner = rng.random((len(images), 2)) * (SIDE - sizes)
    boxes, labels = np.concatenate([corner, corner + sizes], axis=1), rng.integers(0, CLASSES, len(images))
    scores = rng.beta(1, 6, len(images))
    near = (rng.random(len(images)) < 1 / 3) & (np.diff(data.first)[images] > 0)
    of_image = np.diff(data.first)[images[near]]
    objects = data.first[images[near]] + (rng.random(near.sum()) * of_image).astype(int)
    boxes[near] = data.boxes[objects]
    boxes[near, 2:] += boxes[near, :2]
    boxes[near] += rng.normal(0, 0.1, (near.sum(), 4)) * np.tile(data.boxes[objects][:, 2:], 2)
    labels[near] = np.where(rng.random(near.sum()) < 0.8, data.labels[objects], labels[near])
    scores[near] = rng.beta(2, 2, near.sum())
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    return Detections(images, boxes.astype(np.float32), scores.astype(np.float32), labels.astype(np.int64))


def ours(detections: Detections, data: CocoData) -> list[float]:
    """The twelve figures in the order of COCOeval.stats."""
    figures = coco_figures(hits_by_class(match(detections, data)), data.class_names)
    return [figures[name] for name in SUMMARY]


def peer(library: str, truth: dict, results: list[dict]) -> list[float]:
    """The same from pycocotools or faster_coco_eval."""
    if library == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluator = COCOeval(reference, reference.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return list(evaluator.stats[:12])


if __name__ == "__main__":
    main()
