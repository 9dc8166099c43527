"""Mistakes in the heads: at least one for every registered head."""

from __future__ import annotations

from tests.mutation.mutant import Mutant

_ORACLE = "tests/losses/test_heads_oracle.py"


def _mutant(head: str, name: str, path: str, old: str, new: str) -> Mutant:
    """A mistake that the oracle of ``head`` must notice."""
    return Mutant(f"{head}: {name}", f"losses/{path}", old, new, f"{_ORACLE} -k {head}")


MUTANTS = [
    _mutant(
        "softmax", "weighted sum instead of weighted mean", "by_label.py",
        "return own / (own * stats.weight).sum()", "return own",
    ),
    _mutant(
        "softmax", "the target's share of the denominator forgotten", "head.py",
        "return -F.logsigmoid(target_logit - rest)", "return (rest - target_logit).relu()",
    ),
    _mutant(
        "normface", "scale on the target only half", "head.py",
        "return self.scale * stats.target", "return 0.5 * self.scale * stats.target",
    ),
    _mutant(
        "hinge", "margin dropped", "softmax.py",
        "(stats.margin_factor * self.margin + stats.hardest - stats.target)", "(stats.hardest - stats.target)",
    ),
    _mutant(
        "hinge", "hardest class detached", "softmax.py",
        "stats.hardest - stats.target).relu()", "stats.hardest.detach() - stats.target).relu()",
    ),
    _mutant(
        "soft_margin", "margin added instead of subtracted", "softmax.py",
        "stats.target - stats.margin_factor * self.margin", "stats.target + stats.margin_factor * self.margin",
    ),
    _mutant(
        "cosface", "margin outside the scale", "angular.py",
        "self.scale * (psi - factor * self.m3)", "self.scale * psi - factor * self.m3",
    ),
    _mutant(
        "arcface", "margin detached", "angular.py",
        'if self.gradient == "straight_through":', "if self.m2:",
    ),
    _mutant(
        "arcface", "straight-through asked for but exact", "angular.py",
        "(psi - stats.target).detach()", "(psi - stats.target)",
    ),
    _mutant(
        "combined", "rises again past pi", "angular.py",
        "return (1 - 2 * turns.remainder(2)) * phi.cos() - 2 * turns", "return phi.cos()",
    ),
    _mutant(
        "combined", "slope without the factor of the angle", "angular.py",
        "slope = angle_factor * (1", "slope = (1",
    ),
    _mutant(
        "sphereface", "factor of the angle rounded down", "angular.py",
        "super().__init__(scale=scale, m1=margin, gradient=gradient)",
        "super().__init__(scale=scale, m1=float(int(margin)), gradient=gradient)",
    ),
    _mutant(
        "subcenter_arcface", "worst sub-centre of the non-targets", "scores.py",
        "(-1, self.head.sub_centers)).max(dim=2)", "(-1, self.head.sub_centers)).min(dim=2)",
    ),
    _mutant(
        "virtual_softmax", "extra logit counted twice", "virtual.py",
        "return softmax_loss(self.target_logit(stats), stats.log_sum, extra)",
        "return softmax_loss(self.target_logit(stats), stats.log_sum, extra, extra)",
    ),
    _mutant(
        "virtual_softmax", "the cap passes its gradient", "virtual.py",
        "logit.clamp(_SMALLEST_LOGIT, self.virtual_logit_cap)",
        "logit + (logit.clamp(_SMALLEST_LOGIT, self.virtual_logit_cap) - logit).detach()",
    ),
    _mutant(
        "virtual_softmax", "prototype norm detached", "virtual.py",
        "return stats.prototype_norm * stats.embedding_norm",
        "return stats.prototype_norm.detach() * stats.embedding_norm",
    ),
    _mutant(
        "svsoftmax", "synthetic where wrong, virtual where right", "virtual.py",
        "is_right = stats.target >= stats.hardest", "is_right = stats.target < stats.hardest",
    ),
    _mutant(
        "svsoftmax", "h not normalised", "virtual.py",
        " / squared_norm.clamp_min(_SMALLEST_NORM).sqrt()", "",
    ),
    _mutant(
        "lsoftmax", "annealing upside down", "lsoftmax.py",
        "share = 1 / (1 + self.softening(stats))", "share = 1 - 1 / (1 + self.softening(stats))",
    ),
    _mutant(
        "lsoftmax", "k off by one interval", "lsoftmax.py",
        "for index in range(1, multiple):", "for index in range(2, multiple):",
    ),
    _mutant(
        "asoftmax", "prototype norm in the length", "lsoftmax.py",
        "return stats.embedding_norm", "return stats.embedding_norm * stats.prototype_norm",
    ),
    _mutant(
        "wsoftmax", "alpha on the wrong one of the two", "comparison.py",
        "(alpha * target + similarity)", "(target + alpha * similarity)",
    ),
    _mutant(
        "wsoftmax", "gradient through the target dropped", "comparison.py",
        "return pre.target, torch.where(", "return pre.target.detach(), torch.where(",
    ),
    _mutant(
        "so_softmax", "the target's goal forgotten", "comparison.py",
        "(stats.target - 1).square()", "stats.target.square()",
    ),
    _mutant(
        "so_softmax", "non-targets without the square", "comparison.py",
        "(similarity * similarity - self.margin**2)", "(similarity - self.margin**2)",
    ),
    _mutant(
        "uniface", "bias on the non-targets only", "comparison.py",
        "- self.bias.to(stats.target.dtype)", "- self.bias.detach().to(stats.target.dtype)",
    ),
    _mutant(
        "adaface", "signs of the angle's margin", "adaptive.py",
        "_added_angle(stats.target, -shift)", "_added_angle(stats.target, shift)",
    ),
    _mutant(
        "adaface", "biased standard deviation", "adaptive.py",
        "(count - 1).clamp_min(1)", "count.clamp_min(1)",
    ),
    _mutant(
        "magface", "the margin's gradient dropped", "adaptive.py",
        "+ slope * (margin - fixed)", "",
    ),
    _mutant(
        "magface", "no regulariser", "adaptive.py",
        "+ self.norm_weight *", "+ 0 * self.norm_weight *",
    ),
    _mutant(
        "elasticface_arc", "half the noise", "adaptive.py",
        "self.std * stats.noise", "0.5 * self.std * stats.noise",
    ),
    _mutant(
        "elasticface_cos", "margin in the angle", "adaptive.py",
        "return self.scale * (stats.target - self.drawn_margin(stats))",
        "return self.scale * _added_angle(stats.target, self.drawn_margin(stats))",
    ),
    _mutant(
        "curricularface", "the mean of nothing", "mining.py",
        "move_running_(self.mean_cosine, mean, self.momentum)",
        "move_running_(self.mean_cosine, 0 * mean, self.momentum)",
    ),
    _mutant(
        "curricularface", "weight of a hard class detached", "mining.py",
        "hard = similarity * (mean_cosine + similarity)", "hard = similarity * (mean_cosine + similarity.detach())",
    ),
    _mutant(
        "mv_arc", "hard classes moved the wrong way", "mining.py",
        "self.hard_weight * similarity + (self.hard_weight - 1)",
        "self.hard_weight * similarity - (self.hard_weight - 1)",
    ),
    _mutant(
        "mv_am", "threshold without the margin", "mining.py",
        "return (self.margined_cosine(pre).detach(),)", "return (pre.target.detach(),)",
    ),
    _mutant(
        "circle", "weights differentiated", "mining.py",
        "weight = (similarity.detach() + self.margin).clamp_min(0)", "weight = (similarity + self.margin).clamp_min(0)",
    ),
    _mutant(
        "lm_softmax", "not divided by the scale", "largest_margin.py",
        "others / self.scale - stats.target", "others - self.scale * stats.target",
    ),
    _mutant(
        "gm_softmax", "the denominator's offset left out", "largest_margin.py",
        "(beta2 - self.beta1(stats))", "(-self.beta1(stats))",
    ),
    _mutant(
        "ldam", "margins by the square root", "imbalance.py",
        "rarity = counts**-0.25", "rarity = counts**-0.5",
    ),
    _mutant(
        "focal", "weight detached", "imbalance.py",
        "(self.gamma * F.logsigmoid(stats.log_sum - target)).exp() *",
        "(self.gamma * F.logsigmoid(stats.log_sum - target)).exp().detach() *",
    ),
]  # fmt: skip
