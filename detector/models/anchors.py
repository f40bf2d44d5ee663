"""The anchors: the reference boxes at every cell of every pyramid level."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.config.model import AnchorRule
from detector.utils.errors import InputError

P3_STRIDE = 8  # pixels: base_size is that of P3, whichever level is the finest
# An entry for each image size takes 3 MB at 200k anchors; training at several scales sees dozens of sizes.
CACHE_ENTRIES = 32


class AnchorGenerator:
    """Anchors of `scales` sizes and len(ratios) shapes at each cell.

    finest_stride: of level 0, in pixels: 8 for P3, 4 for P2. It doubles at each level.
    A level of stride s has the sizes base_size * s / 8 * 2^(k / scales) in pixels, k = 0 .. scales - 1. An anchor is
    size / sqrt(ratio) wide and size * sqrt(ratio) high (ratio is height / width). The first is centred on pixel (0, 0).
    rule: exact, just that, as in detectron2 (DefaultAnchorGenerator, offset 0): more padding moves no anchor.
    torchvision, as its AnchorGenerator: sizes are truncated and corners rounded to whole pixels, and the stride of a
    level is image side // grid side, which changes with the padding.
    The arithmetic is done on the CPU, whatever torch's default device is.
    Raises InputError if base_size is so small that rounding leaves an anchor no width or height.
    """

    def __init__(
        self,
        *,
        base_size: float,
        scales: int,
        ratios: list[float],
        rule: AnchorRule = "exact",
        finest_stride: int = P3_STRIDE,
    ) -> None:
        self.base_size = base_size
        self.scales = scales
        self.ratios = list(ratios)
        self.rule = rule
        self.finest_stride = finest_stride
        self._cache: dict[tuple[object, ...], Tensor] = {}
        smallest = self._cell(level=0)
        if (smallest[:, 2:] <= smallest[:, :2]).any():
            raise InputError(
                f"model.anchors: with base_size {base_size} and ratios {self.ratios} some sides round to 0 pixels; "
                "use a larger base_size"
            )

    @property
    def anchors_per_cell(self) -> int:
        """A, the number of anchors of each cell."""
        return self.scales * len(self.ratios)

    def __call__(self, image_size: tuple[int, int], grid_sizes: list[tuple[int, int]], device: torch.device) -> Tensor:
        """Anchors (R, 4) float32 xyxy, pixels: by level, then row, column, ratio, size.

        image_size: (h, w) as fed to the backbone. grid_sizes: (h, w) of each level, finest first.
        The tensor is cached: do not write to it.
        """
        if torch.compiler.is_compiling():  # a tracer's tensors cannot be kept
            return self._anchors(image_size, grid_sizes).to(device)
        key = (tuple(image_size), tuple(map(tuple, grid_sizes)), device)
        if key not in self._cache:
            if len(self._cache) == CACHE_ENTRIES:
                del self._cache[next(iter(self._cache))]  # the oldest
            # A later training step could not use a tensor made under inference_mode.
            with torch.inference_mode(False):
                self._cache[key] = self._anchors(image_size, grid_sizes).to(device)
        return self._cache[key]

    def level_sizes(self, grid_sizes: list[tuple[int, int]]) -> list[int]:
        """The number of anchors of each level; their sum is R."""
        return [height * width * self.anchors_per_cell for height, width in grid_sizes]

    def strides(self, image_size: tuple[int, int], grid_sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Pixels from a cell of each level to the next, down and across; arguments as above."""
        if self.rule == "torchvision":
            return [(image_size[0] // height, image_size[1] // width) for height, width in grid_sizes]
        exact = [self.finest_stride * 2**level for level in range(len(grid_sizes))]
        return [(stride, stride) for stride in exact]

    def _anchors(self, image_size: tuple[int, int], grid_sizes: list[tuple[int, int]]) -> Tensor:
        strides = self.strides(image_size, grid_sizes)
        levels = zip(grid_sizes, strides, strict=True)
        return torch.cat([self._grid(grid, stride, self._cell(level)) for level, (grid, stride) in enumerate(levels)])

    def _grid(self, grid_size: tuple[int, int], stride: tuple[int, int], cell: Tensor) -> Tensor:
        """`cell` (A, 4) shifted to each position of the grid: (h * w * A, 4)."""
        y = torch.arange(grid_size[0], device="cpu") * stride[0]
        x = torch.arange(grid_size[1], device="cpu") * stride[1]
        y, x = torch.meshgrid(y, x, indexing="ij")
        shifts = torch.stack((x, y, x, y), dim=-1)
        return (shifts[:, :, None] + cell).reshape(-1, 4)

    def _cell(self, level: int) -> Tensor:
        """The anchors (A, 4) around (0, 0) at `level`."""
        whole_pixels = self.rule == "torchvision"
        base = self.base_size * self.finest_stride / P3_STRIDE * 2**level
        sides = [base * 2 ** (k / self.scales) for k in range(self.scales)]
        sizes = torch.tensor([float(int(side)) if whole_pixels else side for side in sides], device="cpu")
        height_factors = torch.tensor(self.ratios, dtype=torch.float32, device="cpu")[:, None].sqrt()
        half = torch.stack((1 / height_factors * sizes, height_factors * sizes), dim=-1).reshape(-1, 2) / 2
        cell = torch.cat((-half, half), dim=-1)
        return cell.round() if whole_pixels else cell
