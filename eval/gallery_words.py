"""Rates of templates, searches and retrievals as words for people; computes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eval.roc import impostors_needed


def percent(rate: float | None) -> str:
    """A rate with two digits behind the point."""
    return "n/a" if rate is None else f"{rate:.2%}"


def verification_words(part: Mapping[str, Any]) -> str:
    """TARs of pairs of templates, a line each."""
    lines = [f"1:1, {part['num_same']} same + {part['num_different']} different pairs of templates"]
    for far, tar in part["tar_at_far"].items():
        lines.append(f"  TAR at FAR {far:<6} {percent(tar)}{_needs(tar, far, 'different pairs')}")
    return "\n".join(lines)


def identification_words(title: str, part: Mapping[str, Any]) -> str:
    """Rank rates and TPIRs of one search, or of a mean of searches, which has no counts."""
    if "num_entries" in part:
        title += (
            f": {part['num_entries']} entries of {part['num_identities']} identities, {part['num_mated']} mated and "
            f"{part['num_non_mated']} non-mated probes"
        )
    lines = [title, "  " + "   ".join(f"rank-{rank} {percent(rate)}" for rank, rate in part["rank_rates"].items())]
    for fpir, tpir in part["tpir_at_fpir"].items():
        needs = _needs(tpir, fpir, "non-mated probes") if "num_entries" in part else ""
        lines.append(f"  TPIR at FPIR {fpir:<6} {percent(tpir)}{needs}")
    return "\n".join(lines)


def retrieval_words(title: str, part: Mapping[str, Any]) -> str:
    """mAP in both definitions and rank rates."""
    rates = "   ".join(f"rank-{rank} {percent(rate)}" for rank, rate in part["rank_rates"].items())
    return (
        f"{title}: {part['num_queries']} queries, {part['num_entries']} gallery images, {part['num_junk']} junk; "
        f"{part['num_unanswerable']} queries without a match are left out\n"
        f"  mAP {percent(part['mean_ap'])} (precisions at hits)   {percent(part['mean_ap_trapezoid'])} (trapezoids)\n"
        f"  {rates}"
    )


def _needs(value: float | None, rate: str, what: str) -> str:
    """Why there is no number, where that is the count's fault."""
    return "" if value is not None else f" (needs {impostors_needed(float(rate)):,} {what})"
