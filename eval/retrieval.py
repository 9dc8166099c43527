"""`python -m eval.retrieval`: mAP and CMC on Market-1501, DukeMTMC-reID, TinyFace or any sets; rates are next door."""

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
    open_location,
    ranks_of,
    run_gallery_command,
    save_embeddings,
)
from eval.gallery_words import retrieval_words
from eval.image_set import ImageSet
from eval.retrieval_layouts import LAYOUTS, check_tinyface_lists, find_parts, labels_and_cameras
from eval.retrieval_metrics import RANKS, retrieve
from eval.similarity_blocks import GalleryError
from utils.command_line import Outcome, command_parser, to_json
from utils.distributed import Ranks
from utils.files import write_text_whole

PARTS = ("query", "gallery", "distractors")
EXAMPLES = (
    "python -m eval.retrieval --layout market1501 --data Market-1501-v15.09.15 --model work_dirs/run --resize",
    "python -m eval.retrieval --layout market1501 --query query.npz --gallery gallery.npz",
    "python -m eval.retrieval --layout tinyface --data tinyface_aligned --model work_dirs/run --save tinyface_run",
    "python -m eval.retrieval --query probes.npz --gallery people.npz --json",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_gallery_command(_parser(), _run, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "python -m eval.retrieval",
        "Rank a gallery for every query: mAP in both definitions and rank rates, with the rules of Market-1501 (junk, "
        "same camera), TinyFace (distractors) or none.",
        EXAMPLES,
    )
    parser.add_argument("--layout", choices=LAYOUTS, default="plain", help="what file names and folders mean")
    parser.add_argument("--data", metavar="DIR", help="a published set's folder; or give the parts:")
    parser.add_argument("--query", help="images or saved embeddings (.npz, .parquet) of the queries")
    parser.add_argument("--gallery", help="the same of the gallery")
    parser.add_argument("--distractors", help="more gallery, nobody's match")
    parser.add_argument(
        "--save", metavar="DIR", help="keep embeddings as query.npz, gallery.npz, distractors.npz there"
    )
    parser.add_argument("--out", metavar="DIR", help="write results.json there")
    add_search_options(parser, RANKS)
    return parser


def _run(options: argparse.Namespace) -> Outcome | None:
    started = time.monotonic()
    locations = _locations(options)
    with ranks_of(options) as ranks:
        opened = {part: open_location(place, options, resize=options.resize) for part, place in locations.items()}
        if options.data and options.layout == "tinyface":
            check_tinyface_lists(Path(options.data), *(list(opened[part].names) for part in ("query", "gallery")))
        _check_names(options, opened)
        sets = dict(zip(opened, embed_sets(list(opened.values()), options, ranks), strict=True))
        if not ranks.is_main:
            return None
        if options.save:
            Path(options.save).mkdir(parents=True, exist_ok=True)
            for part, embedded in sets.items():
                save_embeddings(str(Path(options.save) / f"{part}.npz"), embedded, options.command)
        facts = _score(options, sets, ranks)
        facts["seconds"] = round(time.monotonic() - started, 3)
        words = retrieval_words(f"{options.layout} {options.data or options.query}", facts)
        if options.out:
            Path(options.out).mkdir(parents=True, exist_ok=True)
            write_text_whole(to_json(facts) + "\n", Path(options.out) / "results.json")
            words += f"\nwritten: {Path(options.out) / 'results.json'}"
        return Outcome(words, facts)


def _locations(options: argparse.Namespace) -> dict[str, str]:
    """What is to be opened, by part."""
    given = {part: getattr(options, part) for part in PARTS if getattr(options, part)}
    if bool(options.data) == bool(given):
        raise GalleryError("give --data DIR of a published set, or --query and --gallery")
    if not options.ranks or min(options.ranks) < 1:
        raise GalleryError(f"--ranks are 1 or more; got {options.ranks}")
    if options.data:
        return {part: str(path) for part, path in find_parts(options.layout, Path(options.data).expanduser()).items()}
    if not {"query", "gallery"} <= set(given):
        raise GalleryError(f"--query and --gallery are both needed; got --{' and --'.join(given)}")
    return given


def _check_names(options: argparse.Namespace, opened: dict[str, EmbeddingSet | ImageSet]) -> None:
    """Labels from names and folders, before the long work: a name that does not parse should not cost an hour."""
    stand_ins = {
        part: EmbeddingSet(
            np.zeros((len(item.labels), 1), dtype=np.float32),
            np.asarray(item.names[:], dtype=np.str_),
            item.labels,
            np.asarray(item.identities, dtype=np.str_),
            np.zeros(len(item.labels), dtype=np.float32),
        )
        for part, item in opened.items()
    }
    labels, *_ = labels_and_cameras(
        options.layout, stand_ins["query"], stand_ins["gallery"], stand_ins.get("distractors")
    )
    if bool((labels < 0).any()):
        raise GalleryError(
            f"{int((labels < 0).sum())} of {len(labels)} queries have no identity"
            + ("; with --layout plain it is the name of an image's folder" if options.layout == "plain" else "")
        )


def _score(options: argparse.Namespace, sets: dict[str, EmbeddingSet], ranks: Ranks) -> dict[str, Any]:
    query, gallery, distractors = sets["query"], sets["gallery"], sets.get("distractors")
    labels, gallery_labels, cameras, gallery_cameras = labels_and_cameras(options.layout, query, gallery, distractors)
    entries = gallery.embeddings
    if distractors is not None:
        if distractors.embeddings.shape[1] != entries.shape[1]:
            raise GalleryError(
                f"distractors have {distractors.embeddings.shape[1]} numbers each and the gallery {entries.shape[1]}: "
                "they are of different models"
            )
        entries = np.concatenate([entries, distractors.embeddings])
    result = retrieve(
        query.embeddings,
        labels,
        entries,
        gallery_labels,
        query_cameras=cameras,
        gallery_cameras=gallery_cameras,
        ranks=options.ranks,
        device=ranks.device,
    )
    about = {part: item.about for part, item in sets.items()}
    return {"layout": options.layout, "command": options.command, **result.to_dict(), "embeddings": about}


if __name__ == "__main__":
    sys.exit(main())
