"""What a GPU could do by its arithmetic, what it does, and what feeds it; writes nothing.

    python benchmarks/gpu.py [--images 2000] [--device cuda] [--models ViT-B-32 ...]

In this order: the device's products in bf16, its memory's rate and that of copies to it; the host's rate of decoding, a
core and all cores; for each model, with random weights, the images/s that this allows, those of the bare model on
ready tensors, and those of `CLIPEncoder` from JPEG files; JPEG decoding on the device, its rate and by how much it
moves embeddings, beside bf16; a fit and 10 000 predictions against the CPU, with the waits that torch itself counts;
one image, p50 and p99, against the bare forward pass. `docs/gpu.md` has the roofline on paper. With `--device cpu` the
parts that need no GPU run.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from encoder import PHONE, SIZE, clock, make_images
from safetensors.torch import save_file

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.encoder import _clip_encoder
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.images import load_image

MODELS = ("ViT-B-32", "ViT-L-14", "ViT-B-16-SigLIP")
ROUNDS = 5
PRODUCT = 8192
BATCH = 256
N_LATENCY, N_PHONE = 200, 16
PIXELS = 3 * 224 * 224


def least_seconds(work: Callable[[], Any], device: torch.device, rounds: int = ROUNDS) -> float:
    """Least time of a call, the first of which does not count."""
    work()
    return min(clock(work, device) for _ in range(rounds))


def flops_of(model: Any, size: tuple[int, int]) -> int:
    """Floating-point operations of the image tower for one image, two for each multiplication with its addition."""
    from torch.utils.flop_counter import FlopCounterMode

    parameter = next(model.parameters())
    image = torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.encode_image(image)
    return int(counter.get_total_flops())


def describe_device(device: torch.device) -> dict[str, float]:
    """Print and return what the device can do: products/s in bf16, bytes/s of its memory and of copies to it."""
    dtype, n = (torch.bfloat16, PRODUCT) if device.type == "cuda" else (torch.float32, 1024)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    flops = 2 * n**3 / least_seconds(lambda: a @ b, device)
    memory = 2 * a.nbytes / least_seconds(lambda: b.copy_(a), device)
    found = {"flops": flops, "memory": memory, "bus": float("inf")}
    if device.type == "cuda":
        pinned = torch.empty(BATCH * PIXELS, dtype=torch.uint8).pin_memory()
        there = torch.empty_like(pinned, device=device)
        found["bus"] = pinned.nbytes / least_seconds(lambda: there.copy_(pinned, non_blocking=True), device)
        print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, CUDA {torch.version.cuda}")
    print(f"products of {n} x {n} {dtype}: {flops / 1e12:.2f} TFLOP/s; memory {memory / 1e9:.0f} GB/s", end="")
    print(f"; copies of pinned memory {found['bus'] / 1e9:.1f} GB/s" if device.type == "cuda" else "")
    return found


def decoding(paths: list[str], size: tuple[int, int], loaded: Any) -> float:
    """Print the JPEG files of a size that are decoded and resized per second of one core, and by all; returns these."""

    def read(path: str) -> Any:
        return loaded.geometry(load_image(path, 0, loaded.min_short_side))

    read(paths[0])
    started = time.process_time()
    for path in paths:
        read(path)
    # processor time, so that other work on the machine does not count
    one = len(paths) / (time.process_time() - started)
    n = os.cpu_count() or 1
    with ThreadPoolExecutor(n) as pool:
        all_ = len(paths) / least_seconds(lambda: list(pool.map(read, paths)), torch.device("cpu"), 2)
    print(f"JPEGs of {size} decoded and resized: {one:.0f} images/s of one core's time, {all_:.0f} by {n} cores")
    return all_


def make_model(folder: Path, architecture: str) -> str:
    """Write a model with random weights, in the layout of open_clip's local-dir."""
    ensure_importable()
    import open_clip

    folder.mkdir()
    config = open_clip.get_model_config(architecture)
    model = open_clip.create_model(architecture, pretrained_hf=False)
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def roofline(loaded: Any, can: dict[str, float]) -> dict[str, float]:
    """Images/s that arithmetic, the weights' way through memory, and the bus allow."""
    weights = sum(p.nbytes for p in loaded.model.visual.parameters())
    height, width = loaded.image_size
    return {
        "arithmetic": can["flops"] / flops_of(loaded.model, loaded.image_size),
        "weights": BATCH * can["memory"] / weights,
        "copies": can["bus"] / (3 * height * width),
    }


def rates(
    architecture: str, name: str, paths: list[str], device: torch.device, can: dict[str, float], decoded: float
) -> None:
    """Print what a model could do, does on ready tensors, and does from files."""
    clip = CLIPEncoder(name, device=str(device), memory=False)
    clip.encode_image(paths[:BATCH])
    loaded = clip._load()
    limits = {**roofline(loaded, can), "decoding": decoded}
    size = min(BATCH, len(paths))
    ready = torch.randn(size, 3, *loaded.image_size, device=device, dtype=loaded.dtype)

    def bare() -> None:
        with torch.inference_mode():
            loaded.model.encode_image(ready)

    def whole() -> None:
        _clip_encoder._known_keys.clear()
        clip.encode_image(paths)

    rounds = ROUNDS if device.type == "cuda" else 2
    on_tensors = size / least_seconds(bare, device, rounds)
    from_files = len(paths) / least_seconds(whole, device, rounds)
    bound = min(limits, key=lambda key: limits[key])
    print(f"{architecture}, {loaded.dtype}: " + ", ".join(f"{key} allows {n:.0f}" for key, n in limits.items()), end="")
    print(f" images/s, so {bound} bounds; ready tensors {on_tensors:.0f}", end="")
    share, bound_share = on_tensors / limits["arithmetic"], from_files / min(limits[bound], on_tensors)
    print(f" ({share:.0%} of the arithmetic), files {from_files:.0f} images/s ({bound_share:.0%} of the bound)")


def device_decoding(name: str, paths: list[str], device: torch.device) -> None:
    """Print the rate of JPEG decoding on the device, and by how much it and bf16 move embeddings."""
    ensure_importable()
    import torchvision

    exact = CLIPEncoder(name, device=str(device), precision="fp32", memory=False)
    coarse = CLIPEncoder(name, device=str(device), precision="bf16", memory=False)
    loaded = exact._load()
    wanted = np.asarray(exact.encode_image(paths))
    moved = 1 - (wanted * np.asarray(coarse.encode_image(paths))).sum(axis=1)
    content = [torch.from_numpy(np.fromfile(path, dtype=np.uint8)) for path in paths]
    try:

        def decode() -> Any:
            return torchvision.io.decode_jpeg(content, mode=torchvision.io.ImageReadMode.RGB, device=device)

        rate = len(paths) / least_seconds(decode, device)
        resized = torch.stack([_resized(image, loaded.image_size) for image in decode()])
    except (RuntimeError, TypeError, AttributeError) as error:
        print(f"JPEG decoding on the device: this torchvision cannot ({error})")
        return
    rows = np.concatenate([np.asarray(loaded.embed_images(some)) for some in resized.cpu().split(BATCH)])
    on_device = 1 - (wanted * rows).sum(axis=1)
    print(
        f"JPEG decoding on the device {rate:.0f} images/s; 1 - cosine to the exact embeddings: mean "
        f"{on_device.mean():.1e}, most {on_device.max():.1e}; of bf16 mean {moved.mean():.1e}, most {moved.max():.1e}"
    )


def _resized(image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The short side resized to the model's, and the middle cut out."""
    from torchvision.transforms import v2

    short = v2.functional.resize(image, min(size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    return v2.functional.center_crop(short, list(size))


def few_shot_problem(n_classes: int = 100, shots: int = 16, dim: int = 512) -> tuple[np.ndarray, ...]:
    """Embeddings, labels and text of a problem of usual size, and 10 000 queries."""
    rng = np.random.default_rng(0)
    classes = rng.standard_normal((n_classes, dim))
    y = np.arange(n_classes).repeat(shots)
    X, queries = (
        (classes[labels] + 2 * rng.standard_normal((len(labels), dim))).astype(np.float32)
        for labels in (y, np.arange(10_000) % n_classes)
    )
    return X, y, (classes + rng.standard_normal(classes.shape)).astype(np.float32), queries


def fit_and_predict(device: torch.device) -> None:
    """Print the time of a fit and of 10 000 predictions, the largest difference to the CPU, and the waits."""
    X, y, text, queries = few_shot_problem()
    answers = {}
    for where in dict.fromkeys((str(device), "cpu")):
        clf = XMAdapterClassifier("precomputed", text_features=text, device=where, random_state=0)
        fit = least_seconds(lambda clf=clf: clf.fit(X, y), torch.device(where), 1)
        predict = least_seconds(lambda clf=clf: clf.predict_proba(queries), torch.device(where))
        answers[where] = clf.predict_proba(queries)
        waits = f", {waits_of(lambda clf=clf: clf.predict_proba(queries))} waits" if where != "cpu" else ""
        print(f"fit of 100 classes x 16 shots on {where} {fit:.2f} s; 10 000 predictions {predict:.3f} s{waits}")
    first, *others = answers.values()
    for other in others:
        print(f"largest difference of a probability between them {np.abs(first - other).max():.1e}")


def waits_of(work: Callable[[], Any]) -> int:
    """Number of times that torch's debug mode sees the caller wait for the device."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def percentiles(work: Callable[[], Any], device: torch.device, number: int = N_LATENCY) -> str:
    """The p50 and p99 of a call in milliseconds."""
    work()
    times = np.percentile([clock(work, device) for _ in range(number)], [50, 99]) * 1000
    return f"p50 {times[0]:.1f} ms, p99 {times[1]:.1f} ms"


def latency(name: str, paths: list[str], device: torch.device, number: int) -> None:
    """Print the time of one prediction from a file, of its parts, and of the bare forward pass."""
    clip = CLIPEncoder(name, device=str(device), memory=False)
    loaded = clip._load()
    labels = np.arange(20) % 5
    clf = XMAdapterClassifier(clip, device=str(device), n_epochs=0, class_names=[f"thing {i}" for i in range(5)])
    clf.fit(paths[:20], labels)
    one = torch.randn(1, 3, *loaded.image_size, device=device, dtype=loaded.dtype)
    embedding = np.asarray(clip.encode_image(paths[:1]))
    turns: Iterator[str] = iter(paths * (number + 1))

    def bare() -> None:
        with torch.inference_mode():
            loaded.model.encode_image(one)

    def whole() -> None:
        _clip_encoder._known_keys.clear()
        clf.predict_proba([next(turns)])

    print(f"one image: bare forward pass {percentiles(bare, device, number)}; ", end="")
    print(f"predict_proba from a JPEG file {percentiles(whole, device, number)}; ", end="")
    print(f"from its embedding {percentiles(lambda: clf.predict_proba(embedding), device, number)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help="open_clip architectures")
    parser.add_argument("--latency", type=int, default=N_LATENCY, metavar="N", help="calls for p50 and p99")
    parser.add_argument("--host", action="store_true", help="measure no more than what feeds the device")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device; --device cpu runs the parts that need none.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        started = time.perf_counter()
        paths = make_images(folder / "images", arguments.images)
        can = describe_device(device)
        models = {one: make_model(folder / one, one) for one in arguments.models}
        first = next(iter(models.values()))
        torch.set_num_threads(1)
        loaded = CLIPEncoder(first, device=str(device), precision="bf16", memory=False)._load()
        decoding(make_images(folder / "phone", N_PHONE, PHONE), PHONE, loaded)
        decoded = decoding(paths[:BATCH], SIZE, loaded)
        if arguments.host:
            return
        torch.set_num_threads(os.cpu_count() or 1)
        for architecture, name in models.items():
            rates(architecture, name, paths, device, can, decoded)
        if device.type == "cuda":
            device_decoding(first, paths[:BATCH], device)
        fit_and_predict(device)
        latency(first, paths, device, arguments.latency)
        print(f"{time.perf_counter() - started:.0f} s in all")


if __name__ == "__main__":
    main()
