"""Devices and precisions of the encoder, and the error of a device without memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from skxma.errors import OutOfMemoryError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device) -> torch.device:
    """Resolve a `device` parameter.

    Parameters
    ----------
    device : str or torch.device
        "auto" is CUDA where there is one and this process can use it, else MPS, else the CPU.

    Returns
    -------
    device : torch.device
        A device that is present.

    Raises
    ------
    ValueError
        If the device is absent, or the name is not that of a device, or this process was forked from one that had
        used CUDA.
    """
    if device == "auto":
        has_cuda = torch.cuda.is_available() and not _is_forked_from_cuda()
        return torch.device("cuda" if has_cuda else "mps" if _has_mps() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device={device!r} is not a device; pass 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'."
        ) from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise ValueError(f"device={device!r} was asked for, but torch sees {found}; pass device='auto' or 'cpu'.")
    if resolved.type == "cuda" and _is_forked_from_cuda():
        raise ValueError(
            f"device={device!r} was asked for in a process that was forked from one that had used CUDA, and CUDA works "
            "in none such. Start processes by 'spawn' or 'forkserver', or let each load and fit after the fork "
            "(gunicorn without --preload); or pass device='cpu'."
        )
    if resolved.type == "mps" and not _has_mps():
        raise ValueError(f"device={device!r} was asked for, but torch sees no MPS; pass device='auto' or 'cpu'.")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Resolve a `precision` parameter to "fp32", "bf16" or "fp16".

    Parameters
    ----------
    precision : {"auto", "fp32", "bf16", "fp16"}
        "auto" is bf16 where the device computes it natively, else fp32.
    device : torch.device
        Where the encoder runs.

    Returns
    -------
    precision : {"fp32", "bf16", "fp16"}
        A key of `PRECISIONS`.
    """
    if precision != "auto":
        return precision
    if device.type == "cuda":
        # emulated bf16 is slower than fp32, and torch counts it as supported
        native = torch.cuda.get_device_capability(device) >= (8, 0) if torch.version.hip is None else True
        return "bf16" if native else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def _is_forked_from_cuda() -> bool:
    # torch answers through a private function alone
    probe = getattr(torch.cuda, "_is_in_bad_fork", None)
    return probe is not None and bool(probe())


def _has_mps() -> bool:
    backend = getattr(torch.backends, "mps", None)
    return backend is not None and bool(backend.is_available())


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bf16 natively; torch answers only through private functions."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a device ran out of memory.

    Parameters
    ----------
    error : BaseException
        What a forward pass raised.

    Returns
    -------
    answer : bool
    """
    # the CPU's and the MPS allocator raise a plain RuntimeError
    messages = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(message in str(error) for message in messages)


@contextmanager
def explain_out_of_memory(work: str, device: torch.device) -> Iterator[None]:
    """Replace a device's out-of-memory error by one that names the work and a remedy.

    Parameters
    ----------
    work : str
        The work, as the subject of the message's sentence.
    device : torch.device
        The device that does the work.

    Raises
    ------
    OutOfMemoryError
        If the device ran out of memory.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        remedy = "fewer images"
        if device.type != "cpu":
            remedy = f"device='cpu', with a CLIPEncoder(device='{device.type}') if the encoder should stay there"
        raise OutOfMemoryError(f"{work} ran out of memory on {device}; pass {remedy}.") from error
