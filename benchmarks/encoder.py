"""The encoder on paths against the bare model on ready tensors, and the store against encoding.

    python benchmarks/encoder.py [--images 64] [--rounds 3] [--device auto]

ViT-B-32 as open_clip builds it, with random weights, on JPEG files made up for the purpose: of 500 x 375 as in data
sets, and of 4000 x 3000 as phones take them. Rounds of both alternate; the least time of each counts, so that other
work on the machine counts little.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from skxma import CLIPEncoder, EmbeddingStore
from skxma.encoder import _clip_encoder as encoder
from skxma.encoder._torchvision_compat import ensure_importable
from skxma.images._content_key import content_key

ARCHITECTURE = "ViT-B-32"
SIZE, PHONE = (500, 375), (4000, 3000)
IN_STORE = 2000


def make_model(folder):
    """Write a model with random weights, in the layout of open_clip's local-dir."""
    ensure_importable()
    import open_clip

    folder.mkdir()
    model = open_clip.create_model(ARCHITECTURE)
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config = {"model_cfg": open_clip.get_model_config(ARCHITECTURE), "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def make_images(folder, number, size=SIZE):
    """JPEG files of coarse colors and fine noise, as many bytes as a photograph has or more."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(
            size, Image.Resampling.BICUBIC
        )
        noisy = np.clip(np.asarray(coarse) + rng.normal(0, 8, (size[1], size[0], 3)), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i}.jpg", quality=90)
    return sorted(map(str, folder.iterdir()))


def clock(work, device):
    """Seconds of a call, with the device's queue empty before and after."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def against_the_bare_model(name, paths, size, arguments):
    clip = CLIPEncoder(name, device=arguments.device, memory=False, batch_size=arguments.batch)
    clip.encode_image(paths[: arguments.batch])
    loaded = clip._load()
    dtype = next(loaded.model.parameters()).dtype
    batches = [
        torch.randn(len(paths[start : start + arguments.batch]), 3, 224, 224, device=loaded.device, dtype=dtype)
        for start in range(0, len(paths), arguments.batch)
    ]

    def bare():
        with torch.inference_mode():
            for batch in batches:
                loaded.model.encode_image(batch)

    def whole():
        encoder._known_keys.clear()
        clip.encode_image(paths)

    times = np.array([[clock(bare, loaded.device), clock(whole, loaded.device)] for _ in range(arguments.rounds)])
    rates = len(paths) / times.min(axis=0)
    print(
        f"{ARCHITECTURE} on {loaded.device}, {dtype}, {torch.get_num_threads()} threads, {len(paths)} JPEGs of {size}:"
    )
    print(
        f"bare model {rates[0]:.1f} images/s, from paths {rates[1]:.1f} images/s: ratio {rates[1] / rates[0]:.2f}",
        flush=True,
    )
    return rates[1]


def from_the_store(name, folder, paths, rate, arguments):
    """Encode small files that are in the store; the time without it is estimated from the rate on photographs."""
    small = make_images(folder / "small", IN_STORE, size=(64, 48))
    store = EmbeddingStore(folder / "store")
    clip = CLIPEncoder(name, device=arguments.device, memory=store)
    loaded = clip._load()

    keys = [content_key(path) for path in small]
    rows = np.random.default_rng(0).standard_normal((IN_STORE, loaded.n_features)).astype(np.float32)
    store.put_many(keys, loaded.namespace("image"), rows)
    encoder._known_keys.clear()
    seconds = clock(lambda: clip.encode_image(small), loaded.device)
    print(
        f"{IN_STORE} images in the store {seconds:.2f} s; encoding as many at the rate above {IN_STORE / rate:.0f} s: "
        f"{IN_STORE / rate / seconds:.0f} times faster"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        name = make_model(folder / "model")
        paths = make_images(folder / "images", arguments.images)
        rate = against_the_bare_model(name, paths, SIZE, arguments)
        against_the_bare_model(name, make_images(folder / "phone", arguments.batch, PHONE), PHONE, arguments)
        from_the_store(name, folder, paths, rate, arguments)


if __name__ == "__main__":
    main()
