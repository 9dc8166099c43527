"""Where the lists and images of a benchmark lie in its folder, as it is distributed. Nothing is parsed here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from eval.pair_formats.pair_list import ListedImage
from eval.safe_pickle import PairError

RFW_GROUPS = ("African", "Asian", "Caucasian", "Indian")
CFP_KINDS = {"cfp_ff": "FF", "cfp_fp": "FP"}
VIEW1 = "_view1"
VIEW1_LISTS = ("pairsDevTest.txt", "pairsDevTrain.txt")
OWN_LISTS = ("pairs.txt", "pairs.csv")
_AGEDB_LIST, _AGEDB_IMAGES = "04_FINAL_protocol_{}_years.mat", "03_Protocol_Images"


@dataclass(frozen=True)
class Layout:
    """Names of a benchmark's list, and of the folder its images may lie in; "." is the benchmark's own folder."""

    lists: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    shared: str = ""  # another folder that may hold them, beside those of its sister sets


LAYOUTS = {
    "lfw": Layout(images=("lfw", "lfw_aligned")),
    "sllfw": Layout(("pair_SLLFW.txt",), ("../lfw/images",)),
    "calfw": Layout(("pairs_CALFW.txt",), ("aligned images",)),
    "cplfw": Layout(("pairs_CPLFW.txt",), ("aligned images",)),
    "xqlfw": Layout(("xqlfw_pairs.txt",), ("xqlfw_aligned_112",)),
    "agedb_30": Layout(("agedb_30_pair.txt", _AGEDB_LIST.format(30)), ("agedb30_align_112", _AGEDB_IMAGES), "agedb"),
    **{f"agedb_{years}": Layout((_AGEDB_LIST.format(years),), (_AGEDB_IMAGES,), "agedb") for years in (5, 10, 20)},
}


def find_list(folder: Path, name: str) -> Path | None:
    """The list of pairs of a benchmark, in its own folder or in one it shares; None where there is none.

    Raises:
        PairError: several in one folder, none of which is more right than the others.
    """
    layout = LAYOUTS.get(name, Layout())  # of its lists the first one that is there counts
    homes = [(name, (*OWN_LISTS, *layout.lists)), *([(layout.shared, layout.lists)] if layout.shared else [])]
    for home, files in homes:
        found = [folder / home / file for file in files if (folder / home / file).is_file()]
        if len(found) > 1 and not {path.name for path in found} <= set(layout.lists):
            images = next((part for part in ("images", *layout.images) if (folder / home / part).is_dir()), "images")
            raise PairError(
                f"{name}: {folder / home} holds {' and '.join(path.name for path in found)}; say which: "
                + " or ".join(f"{home}/{images}:{home}/{path.name}" for path in found)
            )
        if found:
            return found[0]
    return None


def find_images(folder: Path, name: str, first: ListedImage) -> Path:
    """The folder of images of a benchmark: the first one that holds the list's first image.

    Raises:
        PairError: none does; the text names all that were tried.
    """
    tried = [folder / file for file in ("images", *LAYOUTS.get(name, Layout()).images, ".")]
    for candidate in tried:
        # unlike Path's own, it calls a file missing whose name is too long
        if os.path.exists(candidate / first.file):
            return candidate
    raise PairError(
        f"{first.where}: the image {first.file} cannot be read: it is in none of "
        f"{', '.join(str(path) for path in tried)}"
    )


def find_cfp(folder: Path, name: str) -> Path | None:
    """The folder with CFP's Protocol/, for both of its sets: `cfp_fp`, `cfp_ff` or `cfp`."""
    if name not in CFP_KINDS:
        return None
    roots = [folder / place for place in (name, *(set(CFP_KINDS) - {name}), "cfp")]
    return next((root for root in roots if (root / "Protocol" / "Split" / CFP_KINDS[name]).is_dir()), None)


def find_view1(folder: Path, name: str) -> Path | None:
    """The folder with both lists of View 1, of a name such as `lfw_view1`."""
    home = folder / name.removesuffix(VIEW1)
    is_there = name.endswith(VIEW1) and all((home / file).is_file() for file in VIEW1_LISTS)
    return home if is_there else None


def find_rfw(folder: Path, group: str) -> tuple[Path, Path | None] | None:
    """A group of RFW: (its list, its folder of images), or (its .bin, None); None where it is not there."""
    root = folder / "rfw"
    for file in (folder / f"rfw_{group.lower()}.bin", root / f"{group}_test.bin", folder / f"{group}_test.bin"):
        if file.is_file():
            return file, None
    for home in (root, root / "test"):
        for place in (home / "txts" / group, home / group, home):
            pair_list = place / f"{group}_pairs.txt"
            if pair_list.is_file():
                tried = [home / part / group for part in ("data", "images", ".")]
                return pair_list, next((path for path in tried if path.is_dir()), tried[0])
    return None


def rfw_name(group: str) -> str:
    """`rfw_african`, ...: the target of one group."""
    return f"rfw_{group.lower()}"


def list_targets(folder: Path) -> list[str]:
    """What is in a folder, as it would be typed: names of sets, and further lists."""
    found = {path.stem for path in folder.glob("*.bin")}
    for home in (path for path in folder.glob("*") if path.is_dir()):
        known = (*OWN_LISTS, *LAYOUTS.get(home.name, Layout()).lists)
        found |= {home.name for file in known if (home / file).is_file()}
        for path in home.glob("pairs*.txt"):
            if path.name not in (*known, *VIEW1_LISTS):
                found.add(f"{home.name}/images:{home.name}/{path.name}")
        if find_view1(folder, home.name + VIEW1):
            found.add(home.name + VIEW1)
    for name, layout in LAYOUTS.items():
        if layout.shared and any((folder / layout.shared / file).is_file() for file in layout.lists):
            found.add(name)
    found |= {name for name in CFP_KINDS if find_cfp(folder, name)}
    groups = [group for group in RFW_GROUPS if find_rfw(folder, group)]
    found |= {rfw_name(group) for group in groups} | ({"rfw"} if len(groups) == len(RFW_GROUPS) else set())
    return sorted(found)
