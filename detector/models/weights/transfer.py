"""Giving a model weights from elsewhere: what fits is loaded, class rows by name, and what became of it all is said."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from detector.models.retinanet import RetinaNet
from detector.models.state_dict import differences, first_of, load_strictly, without_counters
from detector.models.weights.class_names import match_classes
from detector.models.weights.compatibility import BODY, check_backbone
from detector.models.weights.detectron2 import rows_by_ratio
from detector.models.weights.layouts import BBOX_REG, CLS_LOGITS, Weights
from detector.utils.errors import InputError
from detector.utils.text import shortened

logger = logging.getLogger(__name__)

LOGITS = (f"{CLS_LOGITS}.weight", f"{CLS_LOGITS}.bias")
DELTAS = (f"{BBOX_REG}.weight", f"{BBOX_REG}.bias")
FATES = ("loaded", "remapped", "initialised", "left unused")


@dataclass(frozen=True)
class Transfer:
    """What became of weights in a model, and where each class of its dataset starts."""

    recognised: str
    """What the weights are, a line."""
    tensors: dict[str, Counter[str]]
    """Part of the model → how many tensors had which of FATES. Loaded: as they are in the file. Remapped: with rows
    in another order, or some of them. Initialised: of the model alone. Left unused: of the file alone."""
    kept: dict[str, str]
    """Classes whose rows are the weights' → their names there."""
    new: list[str]
    """Classes that start from the prior."""
    dropped: list[str]
    """Classes of the weights that the dataset doesn't have."""
    fresh: frozenset[str]
    """Names of the model's tensors that nothing was loaded into, or not into all their rows."""
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """All of it, for a terminal or a log file."""
        width = max(map(len, self.tensors)) + 2
        rows = [" " * width + "".join(f"{fate:>13}" for fate in FATES)]
        for part, fates in self.tensors.items():
            rows.append(f"{part:<{width}}" + "".join(f"{fates[fate] or '-':>13}" for fate in FATES))
        kept = [here if here == there else f"{here} ← {there}" for here, there in self.kept.items()]
        groups = {"kept": kept, "new, from the prior": self.new, "dropped": self.dropped}
        classes = [f"{len(names)} {what} ({shortened(names)})" for what, names in groups.items() if names]
        warnings = [f"warning: {warning}" for warning in self.warnings]
        return [self.recognised, *(f"  {row}" for row in rows), f"  classes: {'; '.join(classes)}", *warnings]


def transfer(
    model: RetinaNet, weights: Weights, class_names: Sequence[str], class_map: Mapping[str, str] | None = None
) -> Transfer:
    """Load what fits of `weights` into a newly built model of the classes `class_names`; the rest of it stays as it is.

    Tensors fit by name and shape, the rows of the class logits by the names of the classes (`match_classes`), or in
    order where the weights have no names and as many classes. Raises InputError, and leaves the model as it was, where
    too little of the backbone fits (`check_backbone`) and where class_map is wrong.
    """
    everything = _in_our_names(model, weights)
    own, file = without_counters(model.state_dict()), without_counters(everything)
    warnings = check_backbone(own, file, weights) + _compare_anchors(model, weights)
    row_of, doubt = _find_rows(weights, class_names, class_map or {})
    given = file | _in_our_order(model, file, weights)
    logits = _class_rows(own, given, [row_of.get(name) for name in class_names], weights.num_slots)
    if row_of and not logits:
        row_of, doubt = {}, f"the class logits don't fit: {first_of(differences(_logits(own), _logits(given)))}"
    if doubt:
        warnings.append(doubt if row_of else f"{doubt}; NO class is kept, all start from the prior")
    offered = {name: tensor for name, tensor in given.items() if name not in LOGITS} | logits
    loaded = {name: tensor for name, tensor in offered.items() if name in own and tensor.shape == own[name].shape}
    _check_finite(loaded, weights.source)
    warnings += _compare_parts(own, given, weights)
    counters = {name: tensor for name, tensor in everything.items() if name not in file and tensor.dim() == 0}
    model.load_state_dict(loaded | counters, strict=False)  # what is missing, and why, was gone into above

    kept = {here: weights.slots[row] if weights.slots else f"row {row}" for here, row in row_of.items()}
    return Transfer(
        recognised=f"model.weights {weights.source}: {weights.description}",
        tensors=_count_fates(model, own, file, loaded, discarded=len(without_counters(weights.state)) - len(file)),
        kept=kept,
        new=[name for name in class_names if name not in kept],
        dropped=[name for name in weights.category_ids or [] if name not in kept.values()],
        fresh=frozenset(own.keys() - loaded.keys()) | (set(LOGITS) if len(kept) < len(class_names) else set()),
        warnings=warnings,
    )


def load_whole(model: RetinaNet, weights: Weights, class_names: Sequence[str]) -> None:
    """Load a whole detector, all of whose tensors fit, into a model of (some of) its classes, for use as it is.

    Where the weights have no class names, `class_names` are taken to be theirs, in order. Raises InputError, and leaves
    the model as it was, if that is not so (the first tensors that differ are named).
    """
    row_of, doubt = _find_rows(weights, class_names, {})
    if len(row_of) < len(class_names):
        raise InputError(f"{weights.source}: {doubt or 'it does not know all of the classes'}")
    if doubt:
        logger.warning("%s: %s", weights.source, doubt)
    given = weights.state | _in_our_order(model, weights.state, weights)
    given |= _class_rows(model.state_dict(), given, [row_of[name] for name in class_names], weights.num_slots)
    load_strictly(model, given, source=weights.source)


def _logits(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name in LOGITS}


def _compare_anchors(model: RetinaNet, weights: Weights) -> list[str]:
    """A warning where the deltas and logits were learnt for other anchors, as far as the weights tell."""
    own = {"base_size": model.anchors.base_size, "scales": model.anchors.scales, "ratios": model.anchors.ratios}
    if weights.settings is None:
        return []
    was = {key: weights.settings["anchors"][key] for key in own}
    if was == own:
        return []
    return [f"its anchors were {was} and are {own}; what it predicts for them has to be learnt anew"]


def _compare_parts(own: dict[str, Tensor], given: dict[str, Tensor], weights: Weights) -> list[str]:
    """A warning where the pyramid or a tower does not fit, although the weights are a detector's."""
    if weights.backbone_only:
        return []
    parts = ("backbone.fpn.", "head.classification_head.conv.", "head.regression_head.")
    mine, theirs = ({n: t for n, t in state.items() if n.startswith(parts)} for state in (own, given))
    wrong = differences(mine, theirs)
    if not wrong:
        return []
    made = ", ".join(f"model.{part} {weights.settings[part]}" for part in ("fpn", "head")) if weights.settings else ""
    hint = f"; it was trained with {made}" if made else ""
    return [f"beyond the backbone it does not fit, and has to be learnt anew: {first_of(wrong)}{hint}"]


def _check_finite(loaded: dict[str, Tensor], source: str) -> None:
    for name, tensor in loaded.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{source}: {name} holds infinite numbers or NaN; the training it is from went wrong")


def _in_our_names(model: RetinaNet, weights: Weights) -> dict[str, Tensor]:
    state = weights.state
    if weights.backbone_only:
        state = {BODY + name: tensor for name, tensor in model.backbone["body"].from_classifier(state).items()}
    return state


def _find_rows(
    weights: Weights, class_names: Sequence[str], class_map: Mapping[str, str]
) -> tuple[dict[str, int], str | None]:
    """Class → its row of an anchor's in the weights, of those that have one; and what is doubtful about that."""
    known = None if weights.slots is None else list(weights.category_ids)
    matches = match_classes(class_names, known, class_map, source=weights.source)
    if weights.slots is not None:
        return {here: weights.slots.index(there) for here, there in matches.items()}, None
    if weights.backbone_only:
        return {}, None
    if weights.num_slots == len(class_names):
        doubt = f"its class names are unknown, taken to be the dataset's {len(class_names)} in order"
        return {name: row for row, name in enumerate(class_names)}, doubt
    return {}, (
        f"its class names are unknown, and it has {weights.num_slots} classes where the dataset has {len(class_names)}"
    )


def _in_our_order(model: RetinaNet, given: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The prediction layers with the anchors of a cell by ratio, then size, where they are not."""
    scales, ratios = model.anchors.scales, len(model.anchors.ratios)
    if not weights.sizes_first or 1 in (scales, ratios) or len(given[DELTAS[0]]) != 4 * scales * ratios:
        return {}
    return {name: rows_by_ratio(given[name], scales, ratios) for name in (*LOGITS, *DELTAS)}


def _class_rows(
    own: dict[str, Tensor], given: dict[str, Tensor], rows: Sequence[int | None], num_slots: int
) -> dict[str, Tensor]:
    """The class logits with the given row (of an anchor's num_slots) for each class; where it is None, the model's own.

    Rows are anchor-major, A * K of them. Nothing where no row is given, or if the number of anchors or the width of the
    tower differs.
    """
    if all(row is None for row in rows):
        return {}
    known = [k for k, row in enumerate(rows) if row is not None]
    picked = {}
    for name in LOGITS:
        mine, theirs = own[name].unflatten(0, (-1, len(rows))), given[name].unflatten(0, (-1, num_slots))
        if (mine.shape[0], *mine.shape[2:]) != (theirs.shape[0], *theirs.shape[2:]):
            return {}
        if list(rows) == list(range(num_slots)):
            picked[name] = given[name]
            continue
        new = mine.clone()
        new[:, known] = theirs[:, [rows[k] for k in known]].to(new)
        picked[name] = new.flatten(0, 1)
    return picked


def _count_fates(
    model: RetinaNet, own: dict[str, Tensor], file: dict[str, Tensor], loaded: dict[str, Tensor], *, discarded: int
) -> dict[str, Counter[str]]:
    """Part → number of tensors of each of FATES; the parts that have any. discarded: tensors of a classifier."""
    stages = model.backbone["body"].stages
    part_of = {f"{BODY}{module}.": f"backbone.{stage}" for stage, modules in stages.items() for module in modules}
    part_of |= {
        BODY: "backbone, other",
        "backbone.fpn.": "fpn",
        "head.classification_head.conv.": "classification tower",
        f"{CLS_LOGITS}.": "class logits",
        "head.regression_head.conv.": "regression tower",
        f"{BBOX_REG}.": "box deltas",
        "": "other",
    }
    counts: dict[str, Counter[str]] = {part: Counter() for part in part_of.values()}
    for name in {**own, **file}:
        fates = counts[next(part for prefix, part in part_of.items() if name.startswith(prefix))]
        if name in loaded:  # where it isn't the file's own tensor, its rows were picked or rearranged
            fates["loaded" if loaded[name] is file[name] else "remapped"] += 1
        else:
            fates["initialised"] += name in own
            fates["left unused"] += name in file
    counts["classifier"] = Counter({"left unused": discarded})
    return {part: fates for part, fates in counts.items() if fates.total()}
