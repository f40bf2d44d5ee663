"""The names of a detector's parts, as `train.freeze` and the report on transferred weights have them."""

from __future__ import annotations

from detector.models.retinanet import RetinaNet


def module_paths(model: RetinaNet) -> dict[str, list[str]]:
    """Name of a part → paths of its modules in the model, for `get_submodule`; a whole comes before its parts.

    backbone and its stages (backbone.stem, ...), neck (with the norms before it, if any), attention (if there is one),
    head, its modules (head.classification_head, ...) and theirs (head.classification_head.conv, ...).
    """
    stages = {
        f"backbone.{stage}": [f"backbone.body.{path}" for path in paths] for stage, paths in model.body.stages.items()
    }
    attends = any(True for _ in model.attention.parameters())
    inside_head = [f"head.{path}" for path, _ in model.head.named_modules() if path and path.count(".") < 2]
    return {
        "backbone": ["backbone.body"],
        **stages,
        "neck": [f"backbone.{name}" for name in model.backbone if name != "body"],
        **({"attention": ["attention"]} if attends else {}),
        "head": ["head"],
        **{path: [path] for path in inside_head},
    }
