"""How far apart classes and samples are on the sphere. Tensors in, degrees or cosines out; no files, no models."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

ROW_BLOCK, PROTOTYPE_BLOCK = 1024, 4096


def class_margin(prototypes: Tensor) -> float:
    """Smallest angle between two prototypes, in degrees.

    Source: the class margin of Zhou et al., "Learning Towards the Largest Margins", ICLR 2022. It is at most
    arccos(-1 / (C - 1)), which C <= D + 1 prototypes can reach; with more of them its maximum is the Tammes problem.

    Found in float64 whatever the prototypes' type (in float32 where the device has no other), block by block: memory
    beyond the prototypes stays at about 60 MiB for D = 512, time grows as C^2 D / 2.

    Args:
        prototypes: (C, D), C >= 2, of any length but 0, on any device; of all ranks together.

    Raises:
        ValueError: another shape, a row that is not finite, or one of length 0.
    """
    _check_rows(prototypes, "prototypes", fewest=2)
    largest, pair = torch.full((), -math.inf), (0, 0)
    for start, rows in _unit_blocks(prototypes, ROW_BLOCK):
        for first, others in _unit_blocks(prototypes[start:], PROTOTYPE_BLOCK):
            cosines = rows @ others.T
            # only pairs i < j: column j of this block is row start + first + j of the prototypes
            cosines = cosines.masked_fill_(torch.ones_like(cosines, dtype=torch.bool).tril_(-first), -math.inf)
            if cosines.numel() and (best := cosines.max().cpu()) > largest:
                row, column = divmod(int(cosines.argmax()), cosines.shape[1])
                largest, pair = best, (start + row, start + first + column)
    (_, rows), *_ = _unit_blocks(prototypes[list(pair)], 2)
    # arccos of a cosine near 1 has lost half of its digits
    angle = 2 * torch.atan2((rows[0] - rows[1]).norm(), (rows[0] + rows[1]).norm())
    return math.degrees(float(angle))


def sample_margins(embeddings: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """cos(theta_y) - max_{j != y} cos(theta_j) of every sample; > 0 where the own prototype is the nearest.

    Source: the sample margin of Zhou et al., "Learning Towards the Largest Margins", ICLR 2022, on unit embeddings and
    prototypes.

    Found in float64 as `class_margin` is, block by block; time grows as N C D.

    Args:
        embeddings: (N, D), of any length but 0.
        labels: (N,) integers, 0 .. C - 1.
        prototypes: (C, D), C >= 2, likewise, on the embeddings' device.

    Returns:
        (N,) margins, -2 .. 2, on the embeddings' device.

    Raises:
        ValueError: shapes that do not fit, labels out of range, a row that is not finite, or one of length 0.
    """
    _check_rows(embeddings, "embeddings", fewest=0)
    _check_rows(prototypes, "prototypes", fewest=2)
    if embeddings.shape[1] != prototypes.shape[1]:
        raise ValueError(
            f"sample_margins: embeddings have {embeddings.shape[1]} dimensions, prototypes {prototypes.shape[1]}; "
            "take both from the same model"
        )
    if labels.shape != embeddings.shape[:1] or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"sample_margins: labels must be ({len(embeddings)},) integers like the embeddings, got "
            f"{tuple(labels.shape)} {labels.dtype}"
        )
    if labels.numel() and (labels.min() < 0 or labels.max() >= len(prototypes)):
        raise ValueError(
            f"sample_margins: labels must lie in 0 .. {len(prototypes) - 1}, one row of the prototypes each; got "
            f"{int(labels.min())} .. {int(labels.max())}"
        )
    labels = labels.to(embeddings.device, torch.int64)
    found = [
        _margins(rows, labels[start : start + ROW_BLOCK], prototypes)
        for start, rows in _unit_blocks(embeddings, ROW_BLOCK)
    ]
    return torch.cat(found) if found else embeddings.new_zeros(0, dtype=_precise(embeddings))


def _margins(rows: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    """(B,) sample margins of one block of unit embeddings."""
    own, hardest = rows.new_zeros(len(rows)), rows.new_full((len(rows),), -math.inf)
    for first, others in _unit_blocks(prototypes, PROTOTYPE_BLOCK):
        cosines = rows @ others.T
        here = (labels >= first) & (labels < first + len(others))
        column = torch.where(here, labels - first, 0)[:, None]
        target = cosines.gather(1, column)[:, 0]
        own = torch.where(here, target, own)
        cosines.scatter_(1, column, torch.where(here, -math.inf, target)[:, None])
        hardest = torch.maximum(hardest, cosines.amax(dim=1))
    return own - hardest


def _unit_blocks(rows: Tensor, size: int) -> Iterator[tuple[int, Tensor]]:
    """Index of the first row and the rows of one block after the other, of length 1, in the precision of the result."""
    for start in range(0, len(rows), size):
        block = rows[start : start + size].detach().to(_precise(rows))
        yield start, block / block.norm(dim=1, keepdim=True)


def _precise(rows: Tensor) -> torch.dtype:
    """float64, which TF32 and autocast leave alone; Apple's GPUs have none."""
    return torch.float32 if rows.device.type == "mps" else torch.float64


def _check_rows(rows: Tensor, what: str, *, fewest: int) -> None:
    """Raises ValueError unless rows are (N, D), at least `fewest` of them, each finite and of some length."""
    if rows.ndim != 2 or rows.shape[0] < fewest or not rows.shape[1]:
        wanted = f"(N, D) with N >= {fewest}" if fewest else "(N, D)"
        raise ValueError(
            f"{what} must be {wanted}, got {tuple(rows.shape)}; of sub-centres take one row a class, of shards all"
        )
    bad = 0
    for start in range(0, len(rows), PROTOTYPE_BLOCK):
        lengths = rows[start : start + PROTOTYPE_BLOCK].detach().to(_precise(rows)).norm(dim=1)
        bad += int((~lengths.isfinite() | (lengths == 0)).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(rows)} {what} are NaN, infinite or 0 throughout and have no direction; if they come from "
            "a run it has diverged: take an earlier checkpoint"
        )
