"""What a run says of its verification sets: at its start and at each verification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.eval.faces import memory_pairs
from tests.eval.runs import noisy_result
from training.inputs import Inputs
from training.scored_data import PairSets
from training.scoring import result_words
from training.telling import summary
from utils.config import Config


def test_the_first_lines_warn_of_folds_of_one_kind() -> None:
    pairs = memory_pairs(40)
    lonely = replace(pairs, name="lonely", is_same=np.arange(40) < 20)
    text = summary(Config(), Inputs(scored=PairSets([pairs, lonely])))
    warned = [line for line in text.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith("lonely: warning: 10 of 10 folds hold pairs of one kind only")


def test_pairs_of_one_kind_have_an_accuracy_and_no_auc() -> None:
    pairs = memory_pairs(40)
    both = result_words([noisy_result(pairs, 0.0)])
    assert both == "insightface 100.00% +- 0.00%, AUC 1.0000"
    twins = replace(pairs, is_same=np.ones(40, dtype=bool))
    assert result_words([noisy_result(twins, 0.0)]) == "insightface 100.00% +- 0.00%, AUC n/a"
