"""Loading weights from elsewhere into a model: what fits is loaded, class rows by name, and a report says what did."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from detector.models.parts import module_paths
from detector.models.retinanet import RetinaNet
from detector.models.state_dict import differences, first_of, load_strictly, without_counters
from detector.models.weights.class_names import match_classes
from detector.models.weights.compatibility import BODY, check_backbone
from detector.models.weights.detectron2 import rows_by_ratio
from detector.models.weights.layouts import PREDICTION, Weights
from detector.utils.errors import InputError
from detector.utils.text import counted, shortened

logger = logging.getLogger(__name__)

LOGITS = PREDICTION[:2]  # weight and bias
DELTAS = PREDICTION[2:]
DETECTOR = ("backbone.norms.", "backbone.fpn.", "head.")  # names of what any detector has beyond its backbone begin so
ATTENTION = "attention."
FATES = ("loaded", "remapped", "initialised", "left unused")


@dataclass(frozen=True)
class Transfer:
    """A report on what was loaded, and how each class of the dataset starts."""

    recognised: str
    """A line that says what the weights are."""
    tensors: dict[str, Counter[str]]
    """Part of the model, as in `train.freeze` → the number of its tensors of each of FATES. loaded: as it is in the
    file. remapped: with its rows reordered or selected. initialised: only the model has it. left unused: only the file
    has it."""
    kept: dict[str, str]
    """Classes whose rows come from the weights → their names in the weights."""
    new: list[str]
    """Classes that start from the prior."""
    dropped: list[str]
    """Classes of the weights that the dataset does not have."""
    fresh: frozenset[str]
    """Names of the model's tensors that nothing was loaded into, or not into all of their rows."""
    warnings: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """The whole report, for a terminal or a log file."""
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
    """Load what fits of `weights` into a newly built model of the classes `class_names`; the rest stays as initialised.

    A tensor fits by name and shape. A row of the class logits fits by the name of its class (`match_classes`), or by
    its position where the weights have as many classes and no names.
    Raises InputError, and leaves the model as it was, if too little of the backbone fits (`check_backbone`), if
    class_map is wrong and if a tensor holds infinite numbers or NaN.
    """
    everything = _in_our_names(model, weights)
    own, file = without_counters(model.state_dict()), without_counters(everything)
    warnings = check_backbone(own, file, weights) + _compare_anchors(model, weights)
    row_of, doubt = _find_rows(weights, class_names, class_map or {})
    given = file | _in_our_order(model, file, weights)
    logits = _class_rows(own, given, [row_of.get(name) for name in class_names], weights.num_rows)
    if row_of and not logits:
        row_of, doubt = {}, f"the class logits don't fit: {first_of(differences(_logits(own), _logits(given)))}"
    if doubt:
        warnings.append(doubt if row_of else f"{doubt}; NO class is kept, all start from the prior")
    offered = {name: tensor for name, tensor in given.items() if name not in LOGITS} | logits
    loaded = {name: tensor for name, tensor in offered.items() if name in own and tensor.shape == own[name].shape}
    _check_finite(loaded, weights.source)
    warnings += _compare_parts(own, given, weights) + _compare_attention(model, own, given, weights)
    counters = {name: tensor for name, tensor in everything.items() if name not in file and tensor.dim() == 0}
    model.load_state_dict(loaded | counters, strict=False)  # what is missing is in the report

    kept = {here: weights.row_names[row] if weights.row_names else f"row {row}" for here, row in row_of.items()}
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
    """Load a whole detector into a model of (some of) its classes, for use without training.

    If the weights have no class names, `class_names` are taken for theirs, in order.
    Raises InputError, and leaves the model as it was, if a class or a tensor is missing or does not fit (the first
    tensors that differ are named).
    """
    row_of, doubt = _find_rows(weights, class_names, {})
    if len(row_of) < len(class_names):
        raise InputError(f"{weights.source}: {doubt or 'it does not know all of the classes'}")
    for warning in [*_compare_anchors(model, weights), *([doubt] if doubt else [])]:
        logger.warning("%s: %s", weights.source, warning)
    given = weights.state | _in_our_order(model, weights.state, weights)
    given |= _class_rows(model.state_dict(), given, [row_of[name] for name in class_names], weights.num_rows)
    load_strictly(model, given, source=weights.source)


def _logits(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: state[name] for name in LOGITS}


def _compare_anchors(model: RetinaNet, weights: Weights) -> list[str]:
    """Warnings if the weights were trained with other anchors, as far as that is known."""
    warnings = []
    own = {"base_size": model.anchors.base_size, "scales": model.anchors.scales, "ratios": model.anchors.ratios}
    was = {key: weights.settings["anchors"][key] for key in own} if weights.settings else own
    if was != own:
        warnings.append(f"it was trained with anchors {was}, not {own}: the predictions have to be learnt anew")
    if not weights.backbone_only and weights.anchor_rule != model.anchors.rule:
        warnings.append(
            f"it was trained with model.anchors.rule {weights.anchor_rule}, not {model.anchors.rule}: boxes are "
            "shifted, those of large objects the most"
        )
    return warnings


def _compare_parts(own: dict[str, Tensor], given: dict[str, Tensor], weights: Weights) -> list[str]:
    """Warnings if anything between the backbone and the class logits, or the box deltas, does not fit a detector's."""
    if weights.backbone_only:
        return []
    mine, theirs = (
        {n: t for n, t in state.items() if n.startswith(DETECTOR) and n not in LOGITS} for state in (own, given)
    )
    warnings = _mismatches(mine, theirs, "parts beyond the backbone do not fit and have")
    if not warnings or not weights.settings:
        return warnings
    made = ", ".join(f"model.{part} {weights.settings[part]}" for part in ("neck", "head"))
    return [f"{warning}; it was trained with {made}" for warning in warnings]


def _compare_attention(
    model: RetinaNet, own: dict[str, Tensor], given: dict[str, Tensor], weights: Weights
) -> list[str]:
    """Warnings if what stands between neck and head is another one than that of a detector's weights."""
    mine, theirs = ({n: t for n, t in state.items() if n.startswith(ATTENTION)} for state in (own, given))
    if weights.backbone_only or not (mine or theirs):
        return []
    if not theirs:
        is_identity = all(getattr(block, "starts_as_identity", False) for block in model.attention.children())
        return [] if is_identity else ["its head was trained without attention and has to adapt to it"]
    had = f"; it was trained with model.attention {weights.settings['attention']}" if weights.settings else ""
    if not mine:
        return [f"its attention is left unused, and its head has to adapt to features without it{had}"]
    if not mine.keys() & theirs.keys():
        return [f"its attention does not fit and has to be learnt anew: {first_of(differences(mine, theirs))}{had}"]
    return [warning + had for warning in _mismatches(mine, theirs, "its attention does not fit and has")]


def _mismatches(mine: dict[str, Tensor], theirs: dict[str, Tensor], misfit: str) -> list[str]:
    """A sentence each on what the weights lack, on what the model lacks, and on what has another shape; `misfit` begins
    the last one. mine: tensors of the model; theirs: of the weights."""
    missing, unused = ([name for name in a if name not in b] for a, b in ((mine, theirs), (theirs, mine)))
    common = [name for name in mine if name in theirs]
    wrong = differences(*({name: state[name] for name in common} for state in (mine, theirs)))
    sentences = {
        f"the weights have none of {shortened(missing, 3)}: these start as initialised": missing,
        f"the model has none of {shortened(unused, 3)}: these are left unused": unused,
        f"{misfit} to be learnt anew: {first_of(wrong)}": wrong,
    }
    return [sentence for sentence, found in sentences.items() if found]


def _check_finite(loaded: dict[str, Tensor], source: str) -> None:
    for name, tensor in loaded.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(f"{source}: {name} holds infinite numbers or NaN; the training behind it went wrong")


def _in_our_names(model: RetinaNet, weights: Weights) -> dict[str, Tensor]:
    if weights.backbone_only:
        return {BODY + name: tensor for name, tensor in model.body.from_classifier(weights.state).items()}
    return weights.state


def _find_rows(
    weights: Weights, class_names: Sequence[str], class_map: Mapping[str, str]
) -> tuple[dict[str, int], str | None]:
    """Class → its row among the weights' rows for an anchor, for classes that have one; and any doubt about that."""
    known = None if weights.category_ids is None else list(weights.category_ids)
    matches = match_classes(class_names, known, class_map, source=weights.source)
    if weights.row_names is not None:
        return {here: weights.row_names.index(there) for here, there in matches.items()}, None
    if weights.backbone_only:
        return {}, None
    if weights.num_rows == len(class_names):
        doubt = f"its class names are unknown, taken for the dataset's {len(class_names)} in order"
        return {name: row for row, name in enumerate(class_names)}, doubt
    return {}, (
        f"its class names are unknown, and it has {counted(weights.num_rows, 'class')} where the dataset has "
        f"{len(class_names)}"
    )


def _in_our_order(model: RetinaNet, given: dict[str, Tensor], weights: Weights) -> dict[str, Tensor]:
    """The prediction layers with a cell's anchors reordered by ratio, then size; nothing if they are in that order."""
    scales, ratios = model.anchors.scales, len(model.anchors.ratios)
    if not weights.sizes_first or 1 in (scales, ratios) or len(given[DELTAS[0]]) != 4 * scales * ratios:
        return {}
    return {name: rows_by_ratio(given[name], scales, ratios) for name in (*LOGITS, *DELTAS)}


def _class_rows(
    own: dict[str, Tensor], given: dict[str, Tensor], rows: Sequence[int | None], num_rows: int
) -> dict[str, Tensor]:
    """The class logits' weight and bias, with one of the given anchor's num_rows for each class.

    rows: the row of each class; None: the model's own. The first dimension of a tensor is anchor-major, A * K.
    Nothing if no class has a row, or if the number of anchors or the width of the tower differs.
    """
    if all(row is None for row in rows):
        return {}
    known = [k for k, row in enumerate(rows) if row is not None]
    picked = {}
    for name in LOGITS:
        mine, theirs = own[name].unflatten(0, (-1, len(rows))), given[name].unflatten(0, (-1, num_rows))
        if (mine.shape[0], *mine.shape[2:]) != (theirs.shape[0], *theirs.shape[2:]):
            return {}
        if list(rows) == list(range(num_rows)):
            picked[name] = given[name]
            continue
        new = mine.clone()
        new[:, known] = theirs[:, [rows[k] for k in known]].to(new)
        picked[name] = new.flatten(0, 1)
    return picked


def _count_fates(
    model: RetinaNet, own: dict[str, Tensor], file: dict[str, Tensor], loaded: dict[str, Tensor], *, discarded: int
) -> dict[str, Counter[str]]:
    """Part → the number of its tensors of each of FATES, for the parts that have any.

    discarded: tensors of the file that belong to its classifier.
    """
    counts: dict[str, Counter[str]] = {}
    part_of = _part_of(model, [*own, *file])
    for name, part in part_of.items():
        fates = counts.setdefault(part, Counter())
        if name in loaded:  # if it is not the file's own tensor, its rows were selected or reordered
            fates["loaded" if loaded[name] is file[name] else "remapped"] += 1
        else:
            fates["initialised"] += name in own
            fates["left unused"] += name in file
    counts["classifier"] = Counter({"left unused": discarded})
    return {part: fates for part, fates in counts.items() if fates.total()}


def _part_of(model: RetinaNet, names: Iterable[str]) -> dict[str, str]:
    """Name of a tensor → the smallest part of the model that it is in; "<part>, other" if that has parts itself."""
    parts = {"attention": ["attention"], **module_paths(model)}  # the weights may have one where the model has none
    label = {part: f"{part}, other" if any(one.startswith(f"{part}.") for one in parts) else part for part in parts}
    part_at = {path: label[part] for part, paths in parts.items() for path in paths}

    def find(path: str) -> str:
        while path and path not in part_at:
            path = path.rpartition(".")[0]
        return part_at[path] if path else "other"

    return {name: find(name) for name in names}
