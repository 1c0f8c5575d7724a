"""Where and in which number format the encoder runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from skxma.errors import OutOfMemoryError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device) -> torch.device:
    """Return the device that a `device` parameter stands for.

    Parameters
    ----------
    device : str or torch.device
        "auto" is CUDA where there is one, else MPS, else the CPU.

    Returns
    -------
    device : torch.device
        One that is present.

    Raises
    ------
    ValueError
        If the device is absent, or no device's name.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        resolved = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r} is no device; pass 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'.") from error
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA devices" if torch.cuda.is_available() else "no CUDA device"
        raise ValueError(f"device={device!r} was asked for, but torch sees {found}; pass device='auto' or 'cpu'.")
    if resolved.type == "mps" and not _has_mps():
        raise ValueError(f"device={device!r} was asked for, but torch sees no MPS; pass device='auto' or 'cpu'.")
    return resolved


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16" for a `precision` parameter.

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


def _has_mps() -> bool:
    backend = getattr(torch.backends, "mps", None)
    return backend is not None and bool(backend.is_available())


@lru_cache(maxsize=1)
def _cpu_has_bf16() -> bool:
    """Tell whether the processor multiplies bf16 itself; torch tells it by private functions that come and go."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(probe is not None and probe() for probe in probes)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a device's memory ran out.

    Parameters
    ----------
    error : BaseException
        What a forward pass raised.

    Returns
    -------
    answer : bool
    """
    # the CPU's and the MPS allocator raise a plain RuntimeError
    told = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or any(words in str(error) for words in told)


@contextmanager
def explain_out_of_memory(work: str, device: torch.device) -> Iterator[None]:
    """Say of work on embeddings that a device has too little memory for it.

    Parameters
    ----------
    work : str
        What is done, as the start of a sentence.
    device : torch.device
        Where.

    Raises
    ------
    OutOfMemoryError
        Where the device's memory ran out.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        way = "fewer images"
        if device.type != "cpu":
            way = f"device='cpu', with a CLIPEncoder(device='{device.type}') if that is to encode"
        raise OutOfMemoryError(f"{work} ran out of memory on {device}; pass {way}.") from error
