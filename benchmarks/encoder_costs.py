"""Size and work of encoders of open_clip, counted without their weights.

    python benchmarks/encoder_costs.py [NAME ...]

NAME is "architecture/tag" of open_clip.list_pretrained(); without names those of the guide. Prints the side of the
images, the numbers of parameters of the image tower and of the whole model, and the operations that one image and one
prompt take, a multiplication and an addition counted as two. Models are built on torch's "meta" device, so that
nothing is fetched or computed.
"""

import argparse
import logging

import torch
from torch.utils.flop_counter import FlopCounterMode

from skxma.encoder._open_clip import _open_clip

NAMES = (
    "ViT-B-32/laion2b_s34b_b79k",
    "MobileCLIP2-S0/dfndr2b",
    "MobileCLIP2-S2/dfndr2b",
    "MobileCLIP2-S4/dfndr2b",
    "ViT-B-32-SigLIP2-256/webli",
    "ViT-B-16-SigLIP2/webli",
    "ViT-SO400M-16-SigLIP2-256/webli",
    "PE-Core-S-16-384/meta",
    "PE-Core-B-16/meta",
    "PE-Core-L-14-336/meta",
    "ViT-H-14-worldwide-quickgelu/metaclip2_worldwide",
)


def count(name):
    """Side of the images, parameters of the image tower and of all, and operations an image and a prompt take."""
    open_clip = _open_clip()
    logging.disable(logging.WARNING)  # that weights are missing, as is meant
    architecture, _, tag = name.partition("/")
    if not open_clip.pretrained.get_pretrained_cfg(architecture, tag):
        raise ValueError(f"{name!r} is not in open_clip.list_pretrained().")
    config = open_clip.get_model_config(architecture)
    with torch.device("meta"):
        model = open_clip.create_model(architecture, load_weights=False, device="meta").eval()
    size = config["vision_cfg"]["image_size"]
    length = config["text_cfg"].get("context_length", 77)
    # the counter's hooks want gradients, which cost nothing there
    with FlopCounterMode(display=False) as image:
        model.encode_image(torch.empty(1, 3, size, size, device="meta"))
    with FlopCounterMode(display=False) as text:
        model.encode_text(torch.zeros(1, length, dtype=torch.long, device="meta"))
    parts = (model.visual, model)
    return (
        size,
        *(sum(p.numel() for p in part.parameters()) for part in parts),
        *(counter.get_total_flops() for counter in (image, text)),
    )


def main():
    """Read the names and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES)
    print(f"{'encoder':<50}{'side':>5}{'image, M':>10}{'all, M':>8}{'GFLOP/image':>13}{'GFLOP/prompt':>14}")
    for name in parser.parse_args().names:
        size, *counts = count(name)
        image, whole, per_image, per_prompt = (number / 1e6 for number in counts)
        work = f"{per_image / 1e3:>13.1f}{per_prompt / 1e3:>14.1f}"
        print(f"{name:<50}{size:>5}{image:>10.1f}{whole:>8.0f}{work}")


if __name__ == "__main__":
    main()
