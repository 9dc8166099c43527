"""`python -m eval.templates`: IJB-B and IJB-C, 1:1 and 1:N; formats, pooling and rates are next door."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.embedding_set import EmbeddingSet, load_embedding_set
from eval.gallery_inputs import (
    add_model_options,
    embed_sets,
    ranks_of,
    require_savable,
    run_gallery_command,
    save_embeddings,
)
from eval.gallery_words import identification_words, verification_words
from eval.identification_metrics import identification_rates, search
from eval.ijb_metadata import (
    IjbError,
    IjbFiles,
    IjbImages,
    IjbTemplates,
    find_ijb,
    read_ijb_images,
    read_ijb_pairs,
    read_ijb_templates,
)
from eval.image_set import IMAGE_SUFFIXES, UNKNOWN, FileImages, ImageSet
from eval.roc import tar_at_far
from eval.similarity_blocks import Floats, Indices
from eval.template_metrics import pool_templates, roc_points, template_pair_scores, template_rows
from utils.command_line import Outcome, command_parser, say, to_json
from utils.distributed import Ranks
from utils.files import write_text_whole
from utils.images import FACE

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
FPIRS = (0.01, 0.1)
RANKS = (1, 5, 10)
EXAMPLES = (
    "python -m eval.templates --data IJBC --images IJBC/aligned --model work_dirs/run --save ijbc.npz",
    "python -m eval.templates --data IJBC --embeddings ijbc.npz --out work_dirs/run/ijbc",
    "torchrun --nproc_per_node=8 -m eval.templates --data IJBC --images IJBC/aligned --model work_dirs/run",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    return run_gallery_command(_parser(), _run, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "python -m eval.templates",
        "IJB-B and IJB-C from their official lists: TAR at FAR between templates (1:1), rank rates and TPIR at FPIR "
        "in both galleries (1:N).",
        EXAMPLES,
    )
    parser.add_argument("--data", required=True, help="the set's folder with meta/, or its meta folder")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--embeddings", help=".npz or .parquet whose names are the lists' image names")
    source.add_argument("--images", help="folder of 112x112 faces, aligned, under the lists' names (any image suffix)")
    parser.add_argument("--save", metavar="FILE", help="keep the embeddings of --images as .npz or .parquet")
    parser.add_argument("--out", metavar="DIR", help="write results.json and roc.png there")
    parser.add_argument(
        "--keep-norms",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="a longer embedding weighs more in its template (insightface's use_norm_score)",
    )
    parser.add_argument(
        "--detector-score",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="weigh embeddings by the lists' detector scores (insightface's use_detector_score)",
    )
    add_model_options(parser)
    return parser


def _run(options: argparse.Namespace) -> Outcome | None:
    started = time.monotonic()
    with ranks_of(options) as ranks:
        files = find_ijb(options.data)
        if files.pairs is None and (files.galleries is None or files.probes is None):
            raise IjbError(f"{files.media.parent}: holds neither pairs (1:1) nor galleries with probes (1:N)")
        require_savable(options.save)
        images = read_ijb_images(files.media, files.landmarks)
        embeddings, about = _embeddings(options, images, files, ranks)
        if not ranks.is_main:
            return None
        weights = images.detector_scores if options.detector_score else None
        ids, pooled = pool_templates(
            embeddings, images.templates, images.media, weights=weights, keep_norms=options.keep_norms
        )
        facts: dict[str, Any] = {
            "command": options.command,
            "set": files.name,
            "num_images": len(images.names),
            "num_templates": len(ids),
            "keep_norms": options.keep_norms,
            "detector_score": options.detector_score,
            "embeddings": about,
        }
        say(options, f"{files.name}: {len(images.names)} images in {len(ids)} templates")
        words = []
        if files.pairs is not None:
            facts["verification"] = _verify(files.pairs, ids, pooled)
            words.append(verification_words(facts["verification"]))
        if files.galleries is not None and files.probes is not None:
            facts["identification"] = _identify(files.galleries, files.probes, ids, pooled, str(ranks.device))
            words += [identification_words(f"1:N, {name}", part) for name, part in facts["identification"].items()]
        facts["seconds"] = round(time.monotonic() - started, 3)
        if options.out:
            words.append(_write(Path(options.out), facts))
        return Outcome("\n".join(words), facts)


def _embeddings(
    options: argparse.Namespace, images: IjbImages, files: IjbFiles, ranks: Ranks
) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Embeddings in the lists' order, and how they were made."""
    if options.embeddings:
        saved = load_embedding_set(options.embeddings)
        rows = _rows_by_stem([str(name) for name in saved.names], images.names, options.embeddings, files)
        in_order = np.array_equal(rows, np.arange(len(saved)))  # then without a copy of a gigabyte
        return saved.embeddings if in_order else saved.embeddings[rows], {"file": options.embeddings, **saved.about}
    if not options.model:
        raise IjbError(f"--images {options.images} needs --model, which embeds them")
    folder = Path(options.images).expanduser()
    if not folder.is_dir():
        raise IjbError(f"{folder}: no such folder of aligned images; {_align_words(files)}")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    rows = _rows_by_stem([path.name for path in found], images.names, options.images, files)
    paths = [found[row] for row in rows]
    unknown = np.full(len(paths), UNKNOWN, dtype=np.int64)
    image_set = ImageSet(files.name, FileImages(paths, FACE), images.names, unknown, [], paths)
    (embedded,) = embed_sets([image_set], options, ranks)
    if options.save and ranks.is_main:
        scored = EmbeddingSet(
            embedded.embeddings,
            embedded.names,
            embedded.labels,
            embedded.identities,
            images.detector_scores,
            embedded.about,
        )
        save_embeddings(options.save, scored, options.command)
    return embedded.embeddings, embedded.about


def _rows_by_stem(there: Sequence[str], wanted: Sequence[str], where: str, files: IjbFiles) -> Indices:
    """Where the wanted images are among those that are there, without suffixes, since aligning may change those.

    Raises:
        IjbError: one is missing, or two are called the same.
    """
    places = {_stem(name): place for place, name in enumerate(there)}
    if len(places) != len(there):
        raise IjbError(f"{where}: {len(there)} images have {len(places)} different names (without suffixes)")
    missing = [name for name in wanted if _stem(name) not in places]
    if missing:
        raise IjbError(
            f"{where}: {len(missing)} of the {len(wanted)} images of {files.media.name} are missing, the first is "
            f"{missing[0]!r}; {_align_words(files)}"
        )
    return np.array([places[_stem(name)] for name in wanted], dtype=np.int64)


def _stem(name: str) -> str:
    return name.rsplit("/", 1)[-1].rsplit(".", 1)[0]


def _align_words(files: IjbFiles) -> str:
    return (
        f"`python -m tools.align LOOSE_CROP ALIGNED --landmarks {files.landmarks}` makes aligned images from the loose "
        "crops (docs/identification.md)"
    )


def _verify(path: Path, ids: Indices, pooled: Floats) -> dict[str, Any]:
    pairs = read_ijb_pairs(path)
    scores = template_pair_scores(ids, pooled, pairs.first, pairs.second, path.name)
    tars, thresholds = tar_at_far(scores, pairs.is_same, FARS)
    far, tar = roc_points(scores, pairs.is_same)
    return {
        "num_same": int(pairs.is_same.sum()),
        "num_different": int((~pairs.is_same).sum()),
        "tar_at_far": {f"{key:g}": value for key, value in tars.items()},
        "threshold_at_far": {f"{key:g}": value for key, value in thresholds.items()},
        "roc": {"far": far, "tar": tar},
    }


def _identify(
    galleries: tuple[Path, Path], probe_list: Path, ids: Indices, pooled: Floats, device: str
) -> dict[str, Any]:
    """Both galleries, their mean, and both as one: in that every probe has a mate, so it is closed-set only."""
    probes, lists = read_ijb_templates(probe_list), [read_ijb_templates(path) for path in galleries]
    both = IjbTemplates(
        np.concatenate([part.templates for part in lists]), np.concatenate([part.subjects for part in lists])
    )
    probe_rows = template_rows(ids, probes.templates, probe_list.name)
    names = [path.stem.rsplit("_", 1)[-1] for path in galleries]
    parts: dict[str, Any] = {}
    for name, gallery in zip([*names, "+".join(names)], [*lists, both], strict=True):
        rows = template_rows(ids, gallery.templates, f"gallery {name}")
        found = search(pooled[probe_rows], probes.subjects, pooled[rows], gallery.subjects, device=device)
        parts[name] = identification_rates(found, ranks=RANKS, fpirs=FPIRS).to_dict()
    first, second = (parts[name] for name in names)
    parts["mean"] = {
        kind: {key: _mean(first[kind][key], second[kind][key]) for key in first[kind]}
        for kind in ("rank_rates", "tpir_at_fpir")
    }
    return parts


def _mean(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else (first + second) / 2


def _write(folder: Path, facts: dict[str, Any]) -> str:
    from eval.gallery_plots import plot_curves  # matplotlib costs a second to import

    folder.mkdir(parents=True, exist_ok=True)
    if "verification" in facts:
        roc = facts["verification"]["roc"]
        curves = {facts["set"]: (roc["far"], roc["tar"])}
        plot_curves(folder / "roc.png", f"{facts['set']} 1:1", "false accept rate", "true accept rate", curves)
    write_text_whole(to_json(facts) + "\n", folder / "results.json")
    return f"written: {folder / 'results.json'}" + (" and roc.png" if "verification" in facts else "")


if __name__ == "__main__":
    sys.exit(main())
