"""What was trained on what, as the first lines of a report."""

from __future__ import annotations

from pathlib import Path

from detector.config.schema import Config
from detector.data.coco import CocoData


def facts(config: Config, source: str, class_counts: list[int] | None, data: CocoData, split: str) -> dict:
    """{title, rows: [(label, text)]}. class_counts: boxes of each class in training, where known; data: what `split`,
    the evaluation's, holds."""
    model, train, loss = config.model, config.train, config.loss
    learnt = f": {sum(class_counts)} boxes of {len(class_counts)} classes" if class_counts else ""
    rare = [f"sampling {config.data.sampling}"]
    rare += ["pasting of rare objects"] if config.augment.paste else []
    rare += [f"alpha {loss.alpha}"] if isinstance(loss.alpha, str) else []
    batch = f"{train.batch_size} x {train.accumulate}" if train.accumulate > 1 else f"{train.batch_size}"
    size = config.data.image_size
    fed = f"{size} px" if isinstance(size, int) else f"{size.short} px, at most {size.long}"
    return {
        "title": Path(source).name or str(source),
        "rows": [
            ("Detector", source),
            ("Trained on", f"{config.data.dataset}{learnt}"),
            ("Evaluated on", f"{split}: {len(data)} images with {data.class_counts().sum()} objects"),
            (
                "Network",
                f"{model.backbone.name}, FPN {model.neck.channels}, head {model.head.depth} x {model.head.width}",
            ),
            ("Started from", model.weights or f"backbone {model.backbone.weights or 'from scratch'}"),
            (
                "Images",
                f"{fed}, augmentation {config.augment.transforms if isinstance(config.augment.transforms, str) else 'own'}",
            ),
            (
                "Training",
                f"{train.epochs} epochs, batches of {batch}, {train.optimizer}, lr {train.lr:g}, {train.schedule}",
            ),
            ("Loss", f"{loss.classification}, gamma {loss.gamma}, box {loss.box}"),
            ("For the rare classes", ", ".join(rare)),
        ],
    }
