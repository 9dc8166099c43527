"""`python -m eval.identification`: rank rates and TPIR at FPIR on any labelled faces; rules and rates are next door."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from eval.embedding_set import EmbeddingSet
from eval.gallery_inputs import (
    add_search_options,
    embed_sets,
    numbers,
    open_location,
    ranks_of,
    require_savable,
    run_gallery_command,
    save_embeddings,
)
from eval.gallery_split import common_labels, pool_identities, split_set
from eval.gallery_words import identification_words
from eval.identification_metrics import BACKENDS, SearchResult, identification_rates, search
from eval.image_set import ImageSet
from eval.similarity_blocks import Floats, GalleryError, Indices
from eval.template_metrics import roc_points
from utils.command_line import Outcome, command_parser, to_json
from utils.files import write_text_whole

EXAMPLES = (
    "python -m eval.identification --data lfw/images --model work_dirs/run --save lfw.npz",
    "python -m eval.identification --data lfw.npz --impostors 0.5 --fpirs 0.01,0.1",
    "python -m eval.identification --gallery staff/ --probes door.npz --model work_dirs/run --out work_dirs/door",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_gallery_command(_parser(), _run, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "python -m eval.identification",
        "Search probes in a gallery: closed-set rank rates (CMC) and open-set TPIR at FPIR (DIR at FAR). A location is "
        "a folder of identity folders, a list, a record set, or embeddings saved as .npz or .parquet.",
        EXAMPLES,
    )
    parser.add_argument("--data", help="one labelled location, split by --enroll and --impostors")
    parser.add_argument("--gallery", help="location of the enrolled; with --probes, instead of --data")
    parser.add_argument("--probes", help="location of what is searched for; other identities are impostors")
    parser.add_argument(
        "--enroll", type=int, default=1, metavar="K", help="of --data: the first K images of an identity"
    )
    parser.add_argument(
        "--impostors",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="of --data: share of the identities with more than K images that is not enrolled (evenly spaced); those "
        "with K or fewer never are",
    )
    parser.add_argument(
        "--entries",
        choices=("mean", "each"),
        default="mean",
        help="several enrolled images of an identity are one entry, the mean direction, or an entry each",
    )
    parser.add_argument("--fpirs", type=numbers(float), default=(0.001, 0.01, 0.1))
    parser.add_argument("--backend", choices=BACKENDS, default="auto", help="auto is torch")
    parser.add_argument("--save", metavar="FILE", help="keep the embeddings of --data as .npz or .parquet")
    parser.add_argument("--out", metavar="DIR", help="write results.json, tpir.png and cmc.png there")
    add_search_options(parser, ranks=(1, 5, 10))
    return parser


def _run(options: argparse.Namespace) -> Outcome | None:
    started = time.monotonic()
    _check(options)
    with ranks_of(options) as ranks:
        locations = [options.data] if options.data else [options.gallery, options.probes]
        opened = [open_location(location, options, resize=options.resize) for location in locations]
        _require_identities(opened, locations)
        sets = embed_sets(opened, options, ranks)
        if not ranks.is_main:
            return None
        if options.save:
            save_embeddings(options.save, sets[0], options.command)
        gallery, gallery_labels, probes, probe_labels, facts = _gallery_and_probes(options, sets)
        if options.entries == "mean":
            gallery, gallery_labels = pool_identities(gallery, gallery_labels)
        found = search(
            probes,
            probe_labels,
            gallery,
            gallery_labels,
            backend=options.backend,
            max_rank=max(options.ranks),
            device=ranks.device,
        )
        rates = identification_rates(found, ranks=options.ranks, fpirs=options.fpirs).to_dict()
        facts |= {"entries": options.entries, **rates, "tpir_curve": _tpir_curve(found)}
        facts |= {"command": options.command, "embeddings": [item.about for item in sets]}
        facts["seconds"] = round(time.monotonic() - started, 3)
        words = [identification_words(facts.pop("title"), rates)]
        if options.out:
            words.append(_write(Path(options.out), facts, found))
        return Outcome("\n".join(words), facts)


def _check(options: argparse.Namespace) -> None:
    pair = (options.gallery, options.probes)
    if bool(options.data) == any(pair) or (any(pair) and not all(pair)):
        raise GalleryError("give --data LOCATION, or --gallery LOCATION and --probes LOCATION")
    if not options.ranks or min(options.ranks) < 1 or any(not 0 < fpir < 1 for fpir in options.fpirs):
        raise GalleryError(f"--ranks are 1 or more, --fpirs between 0 and 1; got {options.ranks} and {options.fpirs}")
    if options.enroll < 1 or not 0 <= options.impostors < 1:
        raise GalleryError(
            f"--enroll is 1 or more, --impostors in [0, 1); got {options.enroll} and {options.impostors}"
        )
    if options.save and not options.data:
        raise GalleryError("--save keeps the embeddings of --data; `python -m tools.embed` saves those of any location")
    require_savable(options.save)


def _require_identities(opened: Sequence[EmbeddingSet | ImageSet], locations: Sequence[str]) -> None:
    """Nobody can be found where no image has an identity: said before anything is embedded."""
    if not len(opened[0].identities) or bool((opened[0].labels < 0).all()):
        raise GalleryError(
            f"{locations[0]}: no image has an identity; give a folder with a sub-folder for each, a list with "
            "identities, or embeddings saved with labels"
        )


def _gallery_and_probes(
    options: argparse.Namespace, sets: Sequence[EmbeddingSet]
) -> tuple[Floats, Indices, Floats, Indices, dict[str, Any]]:
    """Embeddings and labels of both, and what was done to get there."""
    if options.data:
        (whole,) = sets
        split = split_set(whole.labels, enroll=options.enroll, impostor_share=options.impostors)
        facts = {
            "title": f"{options.data}, first {options.enroll} enrolled",
            "data": options.data,
            "enroll": options.enroll,
            "impostors": options.impostors,
            "num_enrolled_images": len(split.gallery),
            "num_left_out": split.num_left_out,
        }
        rows, probe_rows = split.gallery, split.probes
        if not len(probe_rows):
            raise GalleryError(f"{options.data}: no image is left to search for")
        return (
            whole.embeddings[rows],
            whole.labels[rows],
            whole.embeddings[probe_rows],
            whole.labels[probe_rows],
            facts,
        )
    gallery, probes = sets
    labels, probe_labels = common_labels(gallery.labels, gallery.identities, probes.labels, probes.identities)
    facts = {
        "title": f"{options.probes} in {options.gallery}",
        "gallery": options.gallery,
        "probes": options.probes,
        "num_enrolled_images": len(gallery),
        "num_unknown_probes": int((probe_labels < 0).sum()),
    }
    return gallery.embeddings, labels, probes.embeddings, probe_labels, facts


def _tpir_curve(found: SearchResult) -> dict[str, list[float]]:
    """TPIR over FPIR: a mated probe of rank 1 counts by its score, another never."""
    mates = np.where(found.ranks == 1, found.mate_scores, -np.inf)[found.is_mated]
    alarms = found.other_scores[~found.is_mated]
    is_mate = np.arange(len(mates) + len(alarms)) < len(mates)
    fpir, tpir = roc_points(np.concatenate([mates, alarms]), is_mate, count=61)
    return {"fpir": fpir, "tpir": tpir}


def _write(folder: Path, facts: dict[str, Any], found: SearchResult) -> str:
    from eval.gallery_plots import plot_curves  # matplotlib costs a second to import

    folder.mkdir(parents=True, exist_ok=True)
    curve = facts["tpir_curve"]
    plot_curves(folder / "tpir.png", "open set", "FPIR", "TPIR at rank 1", {"search": (curve["fpir"], curve["tpir"])})
    mated = np.sort(found.ranks[found.is_mated])
    ranks = np.arange(1, min(found.rank_limit, 100) + 1)
    rates = np.searchsorted(mated, ranks, side="right") / max(1, len(mated))
    curves = {"search": (ranks.tolist(), rates.tolist())} if len(mated) else {}
    plot_curves(folder / "cmc.png", "closed set", "rank", "share of mated probes", curves)
    write_text_whole(to_json(facts) + "\n", folder / "results.json")
    return f"written: {folder / 'results.json'}, tpir.png and cmc.png"


if __name__ == "__main__":
    sys.exit(main())
