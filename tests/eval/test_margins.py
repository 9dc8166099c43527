"""Class margin and sample margins: known solids, dense float64 formulas, block borders, refusals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from eval import margins
from eval.margins import class_margin, sample_margins


def circle(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def dense_class_margin(prototypes: Tensor) -> float:
    unit = torch.nn.functional.normalize(prototypes.double())
    cosines = unit @ unit.T
    return float(cosines[~torch.eye(len(unit), dtype=torch.bool)].max().clamp(-1, 1).acos().rad2deg())


def dense_sample_margins(embeddings: Tensor, labels: Tensor, prototypes: Tensor) -> Tensor:
    normalize = torch.nn.functional.normalize
    cosines = normalize(embeddings.double()) @ normalize(prototypes.double()).T
    is_own = torch.nn.functional.one_hot(labels, len(prototypes)).bool()
    return cosines[is_own] - cosines.masked_fill(is_own, -2).amax(dim=1)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins, "ROW_BLOCK", 4)
    monkeypatch.setattr(margins, "PROTOTYPE_BLOCK", 7)


def test_solids_known_by_hand() -> None:
    cube = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)))
    assert class_margin(cube) == pytest.approx(math.degrees(math.acos(1 / 3)), abs=1e-9)  # 70.53
    octahedron = torch.cat([torch.eye(3), -3 * torch.eye(3)])  # lengths do not count
    assert class_margin(octahedron) == pytest.approx(90, abs=1e-9)
    assert class_margin(torch.eye(5) - 1 / 5) == pytest.approx(math.degrees(math.acos(-1 / 4)), abs=1e-5)  # a simplex
    assert class_margin(circle(0, 100, 340)) == pytest.approx(20, abs=1e-9)


def test_tiny_and_no_angles() -> None:
    assert class_margin(circle(30, 30 + 1e-6, 90)) == pytest.approx(1e-6, rel=1e-6)  # arccos would say 0 or 1.2e-6
    assert class_margin(circle(30, 90, 30)) == 0
    assert class_margin(circle(0, 180)) == pytest.approx(180)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("count", [2, 4, 5, 8, 19])
def test_class_margin_block_by_block(count: int) -> None:
    for seed in range(20):
        prototypes = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
        assert class_margin(prototypes) == pytest.approx(dense_class_margin(prototypes), abs=1e-9)


@pytest.mark.usefixtures("small_blocks")
def test_every_pair_is_looked_at() -> None:
    for first, second in itertools.combinations(range(17), 2):
        prototypes = torch.eye(17)
        prototypes[second, first] = 1.0  # 45 degrees with this one alone
        assert class_margin(prototypes) == pytest.approx(45, abs=1e-9)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_sample_margins_block_by_block(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    prototypes = torch.randn(19, 5, generator=generator).to(dtype)
    labels = torch.cat([torch.arange(19), torch.randint(19, (11,), generator=generator)])
    embeddings = (prototypes.float()[labels] + torch.randn(30, 5, generator=generator)).to(dtype)
    found = sample_margins(embeddings, labels, prototypes)
    expected = dense_sample_margins(embeddings, labels, prototypes)
    assert found.dtype == torch.float64
    assert found.shape == (30,)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (expected > 0).any()
    assert (expected < 0).any()


def test_sample_margins_by_hand() -> None:
    found = sample_margins(circle(0, 60, 90), torch.tensor([0, 0, 1], dtype=torch.int32), circle(0, 180))
    torch.testing.assert_close(found, torch.tensor([2, 1, 0], dtype=torch.float64), rtol=0, atol=1e-12)
    assert sample_margins(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), circle(0, 180)).shape == (0,)


def test_inputs_keep_their_values_and_gradients_stay_out() -> None:
    prototypes = torch.nn.Parameter(torch.randn(6, 3))
    before = prototypes.detach().clone()
    class_margin(prototypes)
    assert not sample_margins(prototypes, torch.arange(6), prototypes).requires_grad
    assert torch.equal(prototypes, before)


def test_refusals() -> None:
    two, labels = torch.eye(2), torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"prototypes must be \(N, D\) with N >= 2, got \(1, 3\)"):
        class_margin(torch.ones(1, 3))
    with pytest.raises(ValueError, match=r"got \(4, 3, 8\); of sub-centres take one row a class"):
        class_margin(torch.ones(4, 3, 8))
    with pytest.raises(ValueError, match="2 of 3 prototypes are NaN, infinite or 0"):
        class_margin(torch.tensor([[0.0, 0], [math.nan, 1], [1, 1]]))
    with pytest.raises(ValueError, match="embeddings have 3 dimensions, prototypes 2"):
        sample_margins(torch.ones(2, 3), labels, two)
    with pytest.raises(ValueError, match=r"labels must be \(2,\) integers .*, got \(2,\) torch.float32"):
        sample_margins(two, labels.float(), two)
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 1, .* got -1 \.\. 2"):
        sample_margins(two, torch.tensor([2, -1]), two)
