"""Several prompts per class: weighted by how well they match the support images, against their plain mean.

    python benchmarks/prompts.py FILE [--encoders tiny photo] [--seeds 8] [--shots 1 2 4]

FILE is a feature file that holds the `images`, see `skxma.datasets.load_features`; the emoji are added for "tiny". The
weights are TIMO's (arXiv:2412.11375, "image-guided text"): a softmax over ``gamma · s / |s|``, s the cosines of a
class's prompts to the mean of its support images. Prints accuracy and log loss of the default with the mean of the
prompts, and what each gamma changes with its standard error.
"""

import argparse

import numpy as np
import torch
from priors import figures

from skxma import CLIPEncoder, XMAdapterClassifier
from skxma.baselines._timo import guided_text, matching_scores
from skxma.datasets import load_emoji, load_features
from skxma.embeddings import unit_rows
from skxma.encoder._class_weights import prompt_features
from skxma.model_selection import FewShotSplit

GAMMAS = (1, 50)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--encoders", nargs="+", default=["tiny", "photo"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    arguments = parser.parse_args()
    photos, emoji = load_features(arguments.file), load_emoji()
    for name in arguments.encoders:
        data = {"images of the file": (photos.images, photos.target, photos.class_names)}
        if name == "tiny":
            data["emoji"] = emoji.images, emoji.target, np.unique(emoji.target)
        for kind, (images, target, class_names) in data.items():
            compare(f"{name}, {kind}", CLIPEncoder(name), list(images), target, list(class_names), arguments)


def compare(title, encoder, images, target, class_names, arguments):
    """Print a line for each set of templates and number of shots."""
    features, y = encoder.encode_image(images), np.unique(target, return_inverse=True)[1]
    for templates in ("simple", "imagenet"):
        prompts = prompt_features(encoder, class_names, templates)
        for shots in arguments.shots:
            found = {}
            for train, test in FewShotSplit(shots, arguments.seeds, random_state=0).split(y, y):
                for gamma, text in texts(np.asarray(features[train]), y[train], prompts).items():
                    clf = XMAdapterClassifier(encoder, text_features=text)
                    p = clf.fit(features[train], y[train]).predict_proba(features[test])
                    found.setdefault(gamma, []).append(figures(p, y[test]))
            plain = np.array(found.pop("mean"))
            accuracy, _, loss = plain.mean(0)
            line = f"{title}, {len(prompts[0])} prompts, {shots} shots: {accuracy:.1f} %, {loss:.3f} nats"
            for gamma, rows in found.items():
                change = np.array(rows) - plain
                error = change[:, 0].std(ddof=1) / len(change) ** 0.5
                line += f"; gamma {gamma}: {change[:, 0].mean():+.2f} ± {error:.2f}, {change[:, 2].mean():+.3f}"
            print(line, flush=True)


def texts(features, y, prompts):
    """Class text (C, D) of the plain mean, and by each gamma."""
    means = np.stack([features[y == c].mean(0) for c in range(len(prompts))])
    rows, given = torch.as_tensor(prompts), torch.ones(prompts.shape[:2], dtype=torch.bool)
    match = matching_scores(torch.as_tensor(means), given[:, 0], rows, given)
    weighted = {gamma: guided_text(rows, given, match, gamma).numpy() for gamma in GAMMAS}
    return {"mean": unit_rows(prompts.mean(1)), **weighted}


if __name__ == "__main__":
    main()
