"""`deterministic=True`: the same bits from the same run. Switches and their errors; nothing random is drawn here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# cuBLAS reads it when its first handle is made; with any other value its products may differ from call to call.
WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
STEADY_WORKSPACES = (":4096:8", ":16:8")
_REFUSED = re.compile(r"(\S+) does not have a deterministic implementation")


class DeterminismError(RuntimeError):
    """Determinism was asked for and cannot be had: by which operation or setting, and what to do."""


@contextmanager
def determinism(is_wanted: bool) -> Iterator[None]:
    """Runs its body with deterministic operations only; without the wish it changes nothing.

    Operations of torch that have a deterministic form take it (index_add_, scatter_, index_copy_ and index_select's
    gradient on CUDA, which the prototypes' gradients go through; convolutions; torch.compile leaves out benchmarks that
    choose between kernels; NCCL leaves out NVLS, whose order of summation varies). One that has none raises.

    Must be entered before anything runs on a GPU and before the process group starts: cuBLAS and NCCL look once.

    Raises:
        DeterminismError: an operation of the body has no deterministic form, or the switches come too late.
    """
    if not is_wanted:
        yield
        return
    _check_workspace()
    before = torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn
    cudnn_before = cudnn.deterministic, cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    except RuntimeError as error:
        found = _REFUSED.search(str(error))
        if found is None:
            raise
        raise DeterminismError(
            f"deterministic=True: {found[1]} has no deterministic implementation on this device, and the run uses it: "
            "choose a network without it, or run with deterministic=False"
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
        cudnn.deterministic, cudnn.benchmark = cudnn_before


def _check_workspace() -> None:
    given = os.environ.get(WORKSPACE)
    if given is None:
        if torch.cuda.is_initialized():
            raise DeterminismError(
                f"deterministic=True: a GPU is already in use, too late to set {WORKSPACE}: start the process with "
                f"{WORKSPACE}={STEADY_WORKSPACES[0]}"
            )
        os.environ[WORKSPACE] = STEADY_WORKSPACES[0]
    elif given not in STEADY_WORKSPACES:
        raise DeterminismError(
            f"deterministic=True: the environment sets {WORKSPACE}={given}, with which products of matrices may differ "
            f"from call to call: unset it, or set it to {' or '.join(STEADY_WORKSPACES)}"
        )
