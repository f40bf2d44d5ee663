"""The section `train`: length, optimizer, schedule, saving."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from detector.config.section import Fraction, Name, NonNegative, Positive, PositiveInt, Section


def _one_or_more(parts: Any) -> Any:
    return [parts] if isinstance(parts, str) and parts != "auto" else parts


class TrainConfig(Section):
    """Length, optimizer, schedule, checkpoints and limits of a training."""

    epochs: PositiveInt = 12
    """Passes over the training set."""
    batch_size: PositiveInt | Literal["auto"] = 16
    """Images per batch; auto: the largest power of two whose measured steps fit into 80 % of the free memory, with at
    most 64 images per optimizer step and at least 8 steps per epoch."""
    accumulate: PositiveInt = 1
    """Batches per optimizer step. Their gradients are summed: the effective batch is batch_size x accumulate."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """sgd (momentum) or adamw."""
    lr: Positive | None = None
    """Learning rate for an effective batch of 16, scaled to the real one: in proportion for sgd, by the square root for
    adamw. null: the optimizer's own, 0.01 for sgd and 1e-4 for adamw. Printed."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """SGD momentum (AdamW's betas stay 0.9, 0.999)."""
    weight_decay: NonNegative | None = None
    """Weight decay. null: the optimizer's own, 1e-4 for sgd and 0.05 for adamw. Norms, biases and tables of positions
    are never decayed."""
    backbone_lr_factor: NonNegative = 1.0
    """Learning rate of the backbone relative to the rest."""
    freeze: Annotated[Literal["auto"] | list[Name], BeforeValidator(_one_or_more)] = "auto"
    """Parts that are not trained, such as [backbone.stem, backbone.layer1]: backbone or one of its stages, neck,
    attention, head or a part of it. auto: the backbone before stride 8 if its norms are frozen, else nothing."""
    unfreeze: dict[Name, Annotated[int, Field(ge=2)]] = {}
    """Frozen parts that are trained from an epoch on (counted from 1), such as {backbone.layer3: 2}."""
    schedule: Literal["step", "cosine", "constant"] = "step"
    """step (divided by 10 at each milestone), cosine (to zero at the end) or constant."""
    milestones: list[Fraction] = [0.667, 0.917]
    """Where `step` divides by 10, as fractions of the training (0.667 and 0.917 are epochs 8 and 11 of 12)."""
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Optimizer steps of linear warm-up from lr / 1000, at most a tenth of the training."""
    clip_norm: Positive | None = None
    """Greatest norm of the gradient; null: no clipping."""
    ema: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Decay per step of an exponential moving average of the weights, such as 0.9998; less in the first steps. The
    average is what is evaluated and saved. null: no average."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Forward and loss arithmetic. auto: bf16 where the device has it in hardware, else fp16 on CUDA, else fp32."""
    channels_last: bool = True
    """NHWC memory layout: faster convolutions, the same results."""
    log_every: PositiveInt = 20
    """Steps between lines in metrics.jsonl and TensorBoard."""
    eval_every: PositiveInt = 1
    """Epochs between evaluations on val; the last epoch is always evaluated."""
    metric: Name = "AP"
    """What the best checkpoint is best in: a COCO figure (AP, AP50, APs, AR100, ...); head, medium or tail, the AP of
    the classes of that frequency (docs/imbalance.md); or a class's name, its AP, even if it is
    called head."""
    save_every: PositiveInt | None = None
    """Steps between checkpoints within an epoch, which change nothing else; null: only at the end of each epoch."""
    keep: Annotated[int, Field(ge=0, le=1000)] = 1
    """Earlier checkpoints kept beside last.pt (last.1.pt, ...). --resume takes the newest that is not damaged."""
    deterministic: bool = False
    """Repeated trainings give identical bits on this machine. Slower on a GPU; on a CPU they always do."""
    patience: PositiveInt | None = None
    """Epochs without a better `metric` after which the training stops; null: never."""
    max_hours: Positive | None = None
    """Hours since the start, or since --resume, after which the training saves and stops; null: never."""
    max_bad_steps: PositiveInt = 10
    """Steps in a row with a loss or gradient that is not finite, after which the training saves and stops. Each such
    step is skipped."""

    @property
    def images_per_step(self) -> int:
        """Images of an optimizer step, batch_size x accumulate, once batch_size is a number."""
        assert isinstance(self.batch_size, int)
        return self.batch_size * self.accumulate
