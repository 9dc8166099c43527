"""What of a weights file fits a backbone; what became of all of it, in words and JSON. Loads nothing, knows no run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from backbones import WeightsError, infer_backbone
from utils.files import sha256_of

INIT_REPORT = "init_report.json"
_SHOWN = 5  # names in a line of the log; the JSON has all


@dataclass
class Count:
    """How many tensors, and how many numbers of parameters in them (buffers are tensors, not parameters)."""

    tensors: int = 0
    parameters: int = 0

    def add(self, parameters: int) -> None:
        """Counts one more tensor."""
        self.tensors += 1
        self.parameters += parameters

    def to_dict(self) -> dict[str, int]:
        """JSON-able."""
        return {"tensors": self.tensors, "parameters": self.parameters}


@dataclass
class Fate:
    """What became of the tensors of one module, or of the whole net.

    Attributes:
        loaded: taken from the file.
        initialised: of the net, with the values it was built with.
        skipped: of the file, not used.
    """

    loaded: Count = field(default_factory=Count)
    initialised: Count = field(default_factory=Count)
    skipped: Count = field(default_factory=Count)

    def to_dict(self) -> dict[str, dict[str, int]]:
        """JSON-able."""
        return {name: getattr(self, name).to_dict() for name in ("loaded", "initialised", "skipped")}


@dataclass
class InitReport:
    """The comparison of a weights file with a backbone.

    Attributes:
        path: the file.
        found: the network and sizes that the file's weights have, None where no registered one fits.
        fitting: what is to be loaded.
        total: over all modules.
        modules: by the first part of the names, in the net's order.
        missing: names of the net that the file lacks.
        unknown: names of the file that the net lacks.
        reshaped: (name, shape in the file, shape in the net).
        not_finite: names whose values in the file include NaN or infinity.
    """

    path: Path
    found: dict[str, Any] | None
    fitting: dict[str, Tensor]
    total: Fate = field(default_factory=Fate)
    modules: dict[str, Fate] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    reshaped: list[tuple[str, list[int], list[int]]] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; hashes the file."""
        return {
            "path": str(self.path),
            "sha256": sha256_of(self.path),
            "weights_of": self.found,
            **self.total.to_dict(),
            "modules": {name: fate.to_dict() for name, fate in self.modules.items()},
            "initialised_names": [*self.missing, *(name for name, _, _ in self.reshaped)],
            "skipped_names": [
                *({"name": name, "reason": "no such name"} for name in self.unknown),
                *(
                    {"name": name, "reason": "shape", "there": there, "here": here}
                    for name, there, here in self.reshaped
                ),
            ],
        }

    def lines(self) -> list[str]:
        """For the log: one line, and more where not everything was taken."""
        loaded, initialised, skipped = self.total.loaded, self.total.initialised, self.total.skipped
        tensors, parameters = loaded.tensors + initialised.tensors, loaded.parameters + initialised.parameters
        what = f"; they are those of {self.found['network']}" if self.found else ""
        lines = [
            f"init_from: {loaded.tensors} of {tensors} tensors ({loaded.parameters:,} of {parameters:,} parameters) "
            f"taken from {self.path}{what}"
        ]
        if initialised.tensors:
            by_module = ", ".join(
                f"{name} {fate.initialised.tensors} of {fate.initialised.tensors + fate.loaded.tensors}"
                for name, fate in self.modules.items()
                if fate.initialised.tensors
            )
            lines.append(
                f"init_from: {initialised.tensors} tensors ({initialised.parameters:,} parameters) left as "
                f"initialised: {by_module}"
            )
        if skipped.tensors:
            lines.append(f"init_from: {skipped.tensors} tensors of the file not used")
        shapes = [f"{name} {_size(there)}, here {_size(here)}" for name, there, here in self.reshaped]
        for label, names in (
            ("not in the file", self.missing),
            ("no such name here", self.unknown),
            ("of another shape", shapes),
        ):
            if names:
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                lines.append(f"init_from: {label}: {', '.join(names[:_SHOWN])}{more}")
        return lines


def compare_weights(path: Path, given: Mapping[str, Tensor], backbone: nn.Module) -> InitReport:
    """Sorts the tensors of a file by whether the backbone can take them.

    Args:
        path: where they came from, for messages.
        given: name -> tensor, without the prefixes of wrappers.
        backbone: the bare module.
    """
    own = backbone.state_dict()
    is_parameter = {name for name, _ in backbone.named_parameters()}
    report = InitReport(path, _recognise(given), {})

    def count(name: str, fates: Iterable[str], numbers: int) -> None:
        module = report.modules.setdefault(name.split(".")[0], Fate())
        for fate in fates:
            for place in (report.total, module):
                getattr(place, fate).add(numbers)

    for name, tensor in own.items():
        numbers = tensor.numel() if name in is_parameter else 0
        if name not in given:
            report.missing.append(name)
            count(name, ["initialised"], numbers)
        elif given[name].shape != tensor.shape:
            report.reshaped.append((name, list(given[name].shape), list(tensor.shape)))
            count(name, ["initialised"], numbers)
            count(name, ["skipped"], given[name].numel() if name in is_parameter else 0)
        else:
            report.fitting[name] = given[name]
            count(name, ["loaded"], numbers)
            if given[name].is_floating_point() and not bool(given[name].isfinite().all()):
                report.not_finite.append(name)
    for name, tensor in given.items():
        if name not in own:
            report.unknown.append(name)
            count(name, ["skipped"], tensor.numel())
    return report


def _recognise(given: Mapping[str, Tensor]) -> dict[str, Any] | None:
    try:
        network, sizes = infer_backbone(given)
    except WeightsError:
        return None
    return {"network": network, **sizes}


def _size(shape: list[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
