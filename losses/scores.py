"""Similarities of one chunk of classes: products, unit lengths, the best sub-centre. No formulas of heads, no sums."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from losses.head import Head
from losses.options import EngineOptions
from losses.products import inverse_norm, matmul, rounded

NO_LOGIT = float("-inf")


@dataclass
class Scores:
    """Similarities of the samples with a chunk of classes; -inf where a sample meets its own class.

    Attributes:
        similarity: (N, chunk), as the head's flags say.
        winner: (N, chunk) int64, which sub-centre gave it; None where a class has one prototype.
        cosine: (N, chunk), where a regulariser needs cosines beside the similarities.
        cosine_winner: which sub-centre gave that.
        prototype_similarity: (N, chunk), <w_y, w_j> as the flags say, where the head needs it.
        inverse: (chunk * sub_centers,) 1 / ||w_j||; empty where nothing is normalised.
    """

    similarity: Tensor
    winner: Tensor | None
    cosine: Tensor | None
    cosine_winner: Tensor | None
    prototype_similarity: Tensor | None
    inverse: Tensor


class Scorer:
    """Computes the scores of a chunk, the same bits each time it is asked.

    Args:
        head: flags, number of sub-centres.
        column: (N,) column of the sample's class here, -1 where elsewhere.
        unit: (N,) what makes the operand's rows unit vectors.
        options: whether cosines are wanted; precision.
    """

    def __init__(self, head: Head, column: Tensor, unit: Tensor, options: EngineOptions) -> None:
        self.head, self.column, self.unit = head, column, unit
        self.is_reduced = options.is_reduced
        self.wants_cosine = options.wants_hardest_cosine and not head.is_on_cosines
        self.needs_inverse = head.normalize_prototypes or self.wants_cosine

    def __call__(
        self, operand: Tensor, own: Tensor | None, chunk: Tensor, start: int, inverse: Tensor | None = None
    ) -> Scores:
        """Scores of the classes from ``start`` on.

        Args:
            operand: (N, D), rounded.
            own: (N, D) the samples' own prototypes, rounded, where the head needs them.
            chunk: (chunk * sub_centers, D).
            start: first class of the chunk.
            inverse: what an earlier call found, to save the norms.
        """
        columns = rounded(chunk, self.is_reduced).t()
        products = matmul(operand, columns)
        between = matmul(own, columns) if own is not None else None
        cosine = cosine_winner = None
        if inverse is None:
            inverse = chunk.new_empty(0)
            if self.needs_inverse:
                inverse = inverse_norm(torch.linalg.vector_norm(chunk, dim=1))
        if self.needs_inverse:
            if self.wants_cosine:
                cosine, cosine_winner = self._best(products * inverse * self.unit.unsqueeze(1))
                overwrite_target(cosine, self.column, start, NO_LOGIT)
            if self.head.normalize_prototypes:
                products *= inverse
                between = between * inverse if between is not None else None
        similarity, winner = self._best(products)
        overwrite_target(similarity, self.column, start, NO_LOGIT)
        return Scores(similarity, winner, cosine, cosine_winner, between, inverse)

    def spread(self, values: Tensor, winner: Tensor | None) -> Tensor:
        """Gradients of the classes (N, chunk) -> of their prototypes (N, chunk * sub_centers): the winner takes all."""
        if winner is None:
            return values
        wide = values.new_zeros(*values.shape, self.head.sub_centers)
        return wide.scatter_(2, winner.unsqueeze(2), values.unsqueeze(2)).flatten(1)

    def _best(self, values: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.head.sub_centers == 1:
            return values, None
        best = values.unflatten(1, (-1, self.head.sub_centers)).max(dim=2)
        return best.values, best.indices


def overwrite_target(values: Tensor, column: Tensor, start: int, fill: float) -> None:
    """Writes ``fill`` where a sample meets its own class; by index, so that no shape depends on data.

    Args:
        values: (N, chunk), changed in place.
        column: (N,) class of the sample, -1 where elsewhere.
        start: first class of the chunk.
        fill: what to write.
    """
    place = column - start
    inside = (place >= 0) & (place < values.shape[1])
    place = place.clamp(0, values.shape[1] - 1).unsqueeze(1)
    current = values.gather(1, place)
    values.scatter_(1, place, torch.where(inside.unsqueeze(1), fill, current))
