"""Predict with a file that `skxma export` wrote; needs onnxruntime, numpy and Pillow, neither torch nor skxma.

    python predict.py birds.onnx new/*.jpg
    python predict.py birds.onnx new/*.jpg --top 3 --json

In a program of your own: ``Predictor("birds.onnx").predict(["a.jpg"])``. Images are read and resized as skxma does, to
the digit.
"""

import argparse
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

UNKNOWN = -1
BATCH = 32
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
LONGEST_STRIP = 50


class Predictor:
    """An exported classifier.

    Parameters
    ----------
    path : str
        A file of `skxma export`.
    n_threads : int, default=0
        Threads of onnxruntime; 0 leaves it the choice.

    Attributes
    ----------
    about : dict
        The metadata of the file: "classes", "thresholds", "image_size", ...
    """

    def __init__(self, path, n_threads=0):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = n_threads
        # errors alone: it warns of constants that it does not compute in advance
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        about = self.session.get_modelmeta().custom_metadata_map
        if "skxma_version" not in about:
            raise ValueError(f"{path} was not written by `skxma export`.")
        self.about = {key: json.loads(value) for key, value in about.items()}

    def predict(self, images):
        """Return the label of each image (path, open file or PIL image), and the probabilities (n, C)."""
        if self.about["part"] != "model":
            raise ValueError("This file takes embeddings; pass them to `run`, or export with part='model'.")
        parts = []
        for start in range(0, len(images), BATCH):
            parts.append(self.run(np.stack([self.pixels(image) for image in images[start : start + BATCH]])))
        return [label for labels, _ in parts for label in labels], np.concatenate([p for _, p in parts])

    def run(self, inputs):
        """Return labels and probabilities (n, C) of pixels (n, height, width, 3) of uint8, or of embeddings (n, D)."""
        name = self.session.get_inputs()[0].name
        probabilities, answers = self.session.run(["probabilities", "answers"], {name: inputs})
        classes, unknown = self.about["classes"], self.about["unknown_label"]
        return [unknown if answer == UNKNOWN else classes[answer] for answer in answers.tolist()], probabilities

    def pixels(self, image):
        """Return an image as pixels (height, width, 3) of the model's size."""
        if not isinstance(image, Image.Image):
            with Image.open(image) as opened:
                return self.pixels(opened)
        about = self.about
        rgb = to_rgb(image, about["rescale_16bit"])
        size = tuple(about["image_size"])
        method = FILTERS[about["interpolation"]]
        return np.asarray(fit_to_size(rgb, size, about["resize_mode"], method, about["fill_color"]))


def to_rgb(image, rescale_16bit="dtype"):
    """Return an image upright, laid on white, with 8 bits a color."""
    image.load()
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION))
    except Exception:  # damaged notes of a camera
        turn = None
    image = image if turn is None else image.transpose(turn)
    if image.mode.startswith("I"):
        return from_16_bits(np.asarray(image), rescale_16bit)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def from_16_bits(values, rescale_16bit):
    """Return gray values of up to 16 bits as an image; see CLIPEncoder's `rescale_16bit`."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise ValueError("an image of 32-bit integers beyond 0 to 65535")
    if rescale_16bit == "dtype" or (rescale_16bit == "range" and low == high):
        scaled = values / 257.0
    elif rescale_16bit == "range":
        scaled = (values.astype(np.float64) - low) * (255 / (high - low))
    else:
        scaled = values * (255 / (2 ** int(rescale_16bit) - 1))
    return Image.fromarray(np.round(scaled).astype(np.uint8)).convert("RGB")


def fit_to_size(image, size, mode, method, fill=0):
    """Resize an RGB image as the encoder was trained with, to a size (height, width)."""
    height, width = size
    if mode == "squash":
        return image.resize((width, height), method)
    short = min(image.size)
    across, down = (max(0, side - LONGEST_STRIP * short) // 2 for side in image.size)
    if across or down:
        image = image.crop((across, down, image.width - across, image.height - down))
    ratios = image.height / height, image.width / width
    if mode == "longest":
        resized = tuple(round(side / max(ratios)) for side in image.size)
    elif height == width:
        short, long = sorted(image.size)
        resized = tuple(height if side == short else int(height * long / short) for side in image.size)
    else:
        # open_clip does not pass its interpolation on here
        resized, method = tuple(round(side / min(ratios)) for side in image.size), Image.Resampling.BICUBIC
    image = image.resize(resized, method)
    framed = Image.new("RGB", (max(width, image.width), max(height, image.height)), (fill,) * 3)
    framed.paste(image, ((framed.width - image.width) // 2, (framed.height - image.height) // 2))
    left, top = round((framed.width - width) / 2), round((framed.height - height) / 2)
    return framed.crop((left, top, left + width, top + height))


def main(argv=None):
    """Print the answer for each image; the status is 1 if one could not be read."""
    parser = argparse.ArgumentParser(description="Classify images with a file of `skxma export`.")
    parser.add_argument("model", metavar="MODEL.onnx")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument("--top", type=int, default=1, metavar="N", help="classes per image (default: 1)")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each image")
    arguments = parser.parse_args(argv)
    predictor = Predictor(arguments.model)
    classes = predictor.about["classes"]
    status = 0
    for path in arguments.images:
        try:
            (label,), (probabilities,) = predictor.predict([path])
        except (OSError, ValueError, SyntaxError) as error:
            print(f"{path}: {error}", file=sys.stderr)
            status = 1
            continue
        best = np.argsort(-probabilities, kind="stable")[: arguments.top].tolist()
        found = [[classes[c], round(float(probabilities[c]), 4)] for c in best]
        if arguments.json:
            print(json.dumps({"image": path, "label": label, "classes": found}, ensure_ascii=False))
        else:
            print(path, label, *(f"{name} {probability:.1%}" for name, probability in found), sep="\t")
    return status


if __name__ == "__main__":
    sys.exit(main())
