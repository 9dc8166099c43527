"""Mistakes in the engine, the sampling and the optimizer."""

from __future__ import annotations

from tests.mutation.mutant import Mutant

_ORACLE = "tests/losses/test_heads_oracle.py"
_STATISTICS = "tests/losses/test_statistics.py"
_PARTIAL_FC = "tests/losses/test_partial_fc.py"
_OPTIMIZERS = "tests/losses/test_optimizers.py"
_ENGINE = "losses/statistics.py"
_CHUNKS = "losses/chunks.py"
_KERNELS = "losses/kernels.py"
_SCORES = "losses/scores.py"

MUTANTS = [
    Mutant(
        "embedding gradient without the factor world_size", _ENGINE,
        "return g_local * collectives.world_size,", "return g_local,", f"{_ORACLE} -k cosface",
    ),
    Mutant(
        "each rank's own hardest class instead of the global one", _ENGINE,
        "hardest, hardest_cosine, top = largest.unbind()",
        "hardest, hardest_cosine, top = largest.unbind()\n        hardest = found.hardest",
        f"{_ORACLE} -k svsoftmax",
    ),
    Mutant(
        "the sum over classes stays local", _ENGINE,
        "total, ties, cosine_ties, *slopes = collectives.sum_(torch.stack(rows)).unbind()",
        "_, ties, cosine_ties, *slopes = collectives.sum_(torch.stack(rows)).unbind(); total = rows[0]",
        f"{_ORACLE} -k normface",
    ),
    Mutant(
        "slopes by the context divided by the ranks", _ENGINE,
        "*(slope * rescale for slope in found.context_slopes),",
        "*(slope * rescale / collectives.world_size for slope in found.context_slopes),",
        f"{_STATISTICS} -k any_flags",
    ),
    Mutant(
        "gradient of the embedding norm dropped", _ENGINE,
        "if g_norm is not None:", "if g_norm is not None and False:", f"{_ORACLE} -k virtual_softmax",
    ),
    Mutant(
        "gradient of the prototype norm halved", _ENGINE,
        "g_rows += (g_own_norm * is_own)", "g_rows += 0.5 * (g_own_norm * is_own)", f"{_ORACLE} -k virtual_softmax",
    ),
    Mutant(
        "gradient through w_y's similarities stays on each rank", _ENGINE,
        "g_own = collectives.sum_(g_own.clone())", "g_own = g_own.clone()", f"{_ORACLE} -k wsoftmax",
    ),
    Mutant(
        "gradient through w_y's unit length dropped", _ENGINE,
        "through = project_unit(g_own, unit, own_inverse) if head.normalize_prototypes else g_own",
        "through = g_own * own_inverse.unsqueeze(1)", f"{_ORACLE} -k wsoftmax",
    ),
    Mutant(
        "the first sub-centre of the own class instead of the best", _ENGINE,
        "similarity.argmax(dim=1))", "similarity.argmin(dim=1))", f"{_ORACLE} -k subcenter",
    ),
    Mutant(
        "statistics updated in evaluation mode", "losses/partial_fc.py",
        "update_head=self.training and torch.is_grad_enabled(),", "update_head=True,", "tests/losses",
    ),
    Mutant(
        "gradient of the hardest class not shared by equals", _CHUNKS,
        "return ties * (best >= top) + here * (top >= best)", "return torch.ones_like(ties)",
        f"{_STATISTICS} -k equal_hardest",
    ),
    Mutant(
        "no projection of the gradient through w / ||w||", "losses/products.py",
        "return gradient.addcmul_(rows, along.unsqueeze(1), value=-1)", "return gradient", f"{_ORACLE} -k normface",
    ),
    Mutant(
        "the running sum not rescaled to a new maximum", _CHUNKS,
        "found.total = found.total * rescale + share.total", "found.total = found.total + share.total",
        f"{_ORACLE} -k softmax",
    ),
    Mutant(
        "kept kernels not rescaled", _CHUNKS,
        "(factor * (shift - upstream.shift).exp())", "(factor * torch.ones_like(shift))",
        f"{_ORACLE} -k cosface",
    ),
    Mutant(
        "the target stays among the non-targets", _SCORES,
        "similarity, winner = self._best(products)\n        overwrite_target(similarity, self.column, start, NO_LOGIT)",
        "similarity, winner = self._best(products)", f"{_ORACLE} -k cosface",
    ),
    Mutant(
        "the hardest class of every chunk gets its gradient", _CHUNKS,
        "(upstream.hardest[1] * (top == upstream.hardest[0]))", "upstream.hardest[1]", f"{_STATISTICS} -k any_flags",
    ),
    Mutant(
        "every sub-centre gets the winner's gradient", _SCORES,
        "return wide.scatter_(2, winner.unsqueeze(2), values.unsqueeze(2)).flatten(1)",
        "return (wide + values.unsqueeze(2)).flatten(1)", f"{_ORACLE} -k subcenter",
    ),
    Mutant(
        "the target's term counted in plain sums", _KERNELS,
        "overwrite_target(logit, self.column, start, NO_LOGIT)", "overwrite_target(logit, self.column, start, 0.5)",
        f"{_ORACLE} -k uniface",
    ),
    Mutant(
        "no sampling correction in plain sums", _KERNELS,
        "return counted * self.column_logit[start : start + terms.shape[1]].exp()", "return counted",
        f"{_ORACLE} -k uniface",
    ),
    Mutant(
        "the interclass filter a little off", _KERNELS,
        "scores.similarity > self.limit if", "scores.similarity > self.limit + 0.05 if", f"{_ORACLE} -k filter",
    ),
    Mutant(
        "filtered classes count exp(0)", _KERNELS,
        "logit = logit.masked_fill(dropped, NO_LOGIT)", "logit = logit.masked_fill(dropped, 0.0)",
        f"{_ORACLE} -k filter",
    ),
    Mutant(
        "products of operands with two bits of mantissa", "losses/products.py",
        "values.bfloat16() if values.is_cuda else values.bfloat16().to(values.dtype)",
        "values.to(torch.float8_e5m2).to(values.dtype)",
        "tests/losses/test_precision_and_edges.py -k autocast",
    ),
    Mutant(
        "the sampling correction on the batch's own classes too", "losses/sampling.py",
        "torch.where(is_positive, 0, ratio.log())", "ratio.log().expand(rows.shape)",
        f"{_ORACLE} -k sampled",
    ),
    Mutant(
        "backward products rounded under autocast", "losses/backward.py",
        "with torch.autocast(ctx.saved_tensors[0].device.type, enabled=False):", "if True:",
        "tests/losses/test_misuse.py -k autocast",
    ),
    Mutant(
        "no room for a negative", "losses/sampling.py",
        "min(labels.shape[0] + 1, size)", "min(labels.shape[0], size)", f"{_PARTIAL_FC} -k negative",
    ),
    Mutant(
        "all ranks draw the same negatives", "losses/partial_fc.py",
        "seed = mixed_seed(self.seed, step, micro_step, self.collectives.rank)",
        "seed = mixed_seed(self.seed, step, micro_step)", f"{_PARTIAL_FC} -k negatives",
    ),
    Mutant(
        "padding counts as samples", "losses/collectives.py",
        "weight[rank * longest + size : (rank + 1) * longest] = 0",
        "weight[rank * longest + size : (rank + 1) * longest] *= 1", f"{_ORACLE} -k softmax",
    ),
    Mutant(
        "the centroid of each rank's classes alone", "losses/regularizers.py",
        "_CentroidNorm.apply(active, collectives.sum_(total) / num_rows, num_rows)",
        "_CentroidNorm.apply(active, total / num_rows, num_rows)", f"{_ORACLE} -k regularizers",
    ),
    Mutant(
        "sample margin in similarities instead of cosines", "losses/regularizers.py",
        "(stats.hardest_cosine - head.target_cosine(stats))", "(stats.hardest - stats.target)",
        f"{_ORACLE} -k regularizers",
    ),
    Mutant(
        "momentum decays where nothing was sampled", "losses/prototype_optimizer.py",
        "wholes = [self.fc.weight.detach(),",
        "self.state[names[0]].mul_(0.99)\n        wholes = [self.fc.weight.detach(),", _OPTIMIZERS,
    ),
    Mutant(
        "AdamW without bias correction", "losses/prototype_optimizer.py",
        "(1 - betas[1] ** step).sqrt()", "torch.ones_like(step)", _OPTIMIZERS,
    ),
]  # fmt: skip
