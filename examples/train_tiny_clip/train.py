"""Train, evaluate and export the bundled encoder: `python examples/train_tiny_clip/train.py`."""

import argparse
import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import evaluate
import numpy as np
import torch
from augment import augment, may_flip, warmup_cosine
from captions import draw_caption
from data import Split, load_split
from losses import clip_loss, concept_loss, image_loss
from model import build, encode_captions, export
from sample import write_sample
from words import token_table

HERE = Path(__file__).resolve().parent
TINY = HERE.parents[1] / "skxma" / "encoder" / "tiny"
N_CONCEPTS = 64  # a batch is two images of each
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
# people and flags are hundreds of near-copies (emojibase's groups 1 and 9)
_WEIGHT = {1: 0.5, 9: 0.3}


class Batches:
    """Draws batches: concepts, two images of each by different sets where there are, and a caption each."""

    def __init__(self, split: Split, tokenizer, seed: int) -> None:
        self.concepts, self.tokenizer = split.concepts, tokenizer
        self.rng = np.random.default_rng(seed)
        rgba = torch.from_numpy(split.train.rgba).permute(0, 3, 1, 2).float() / 255
        self.images = torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], 1)
        self.rows: dict[int, list[int]] = {}
        for row, concept in enumerate(split.train.concept):
            self.rows.setdefault(int(concept), []).append(row)
        self.seen = sorted(self.rows)
        weights = np.array([_WEIGHT.get(split.concepts[c].group, 1.0) for c in self.seen])
        self.chance = weights / weights.sum()
        self.label = {concept: i for i, concept in enumerate(self.seen)}
        self.flip = {concept: may_flip(split.concepts[concept]) for concept in self.seen}

    def draw(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return images, token ids and labels."""
        chosen = self.rng.choice(self.seen, N_CONCEPTS, replace=False, p=self.chance).repeat(2)
        rows = []
        for concept in chosen[::2]:
            have = self.rows[concept]
            rows.extend(self.rng.choice(have, 2, replace=len(have) < 2))
        tokens = self.tokenizer([draw_caption(self.concepts[c], self.rng) for c in chosen])
        # captions are short: reading the padding would take five times as long
        tokens = tokens[:, : int((tokens != 0).sum(1).max())]
        flip = torch.tensor([self.flip[c] for c in chosen])
        return augment(self.images[rows], flip), tokens, torch.tensor([self.label[c] for c in chosen])


def make_optimizer(model, head: torch.Tensor) -> torch.optim.AdamW:
    """AdamW that leaves the token table, biases and scales undecayed."""
    plain = [p for n, p in model.named_parameters() if p.ndim < 2 or "embedding" in n]
    decayed = [p for n, p in model.named_parameters() if not (p.ndim < 2 or "embedding" in n)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": [*decayed, head], "weight_decay": WEIGHT_DECAY}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, betas=(0.9, 0.98))


def train(split: Split, work: Path, steps: int, seed: int = 0):
    """Return the trained model."""
    torch.manual_seed(seed)
    model, tokenizer = build()
    model.token_embedding.weight.data.copy_(token_table(work, tokenizer, model.token_embedding.embedding_dim))
    model.train().to(memory_format=torch.channels_last)
    batches = Batches(split, tokenizer, seed)
    head = torch.nn.Parameter(torch.randn(len(batches.seen), model.text_projection.shape[1]))
    optimizer = make_optimizer(model, head)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps))
    ahead = ThreadPoolExecutor(1)  # alone it draws random numbers, so that the order of work changes none
    upcoming = ahead.submit(batches.draw)
    for step in range(steps):
        images, tokens, labels = upcoming.result()
        upcoming = ahead.submit(batches.draw)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            embeddings = model.encode_image(images.contiguous(memory_format=torch.channels_last))
            texts = encode_captions(model, tokens)
        embeddings, texts = (torch.nn.functional.normalize(f.float(), dim=-1) for f in (embeddings, texts))
        matched = clip_loss(embeddings, texts, model.logit_scale.exp(), labels)
        loss = matched + concept_loss(embeddings, head, labels) + 0.5 * image_loss(embeddings, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*model.parameters(), head], 1.0)
        optimizer.step()
        schedule.step()
        model.logit_scale.data.clamp_(0, np.log(100))
        if step % 100 == 0:
            print(f"step {step}/{steps} loss {loss.item():.3f} of which CLIP's {matched.item():.3f}", flush=True)
    return model.eval()


def main() -> None:
    """Run the whole recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "tiny_clip")
    parser.add_argument("--steps", type=int, default=3000)
    # more threads only help on idle cores: beside other work they wait for each other
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=TINY)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    split = load_split(arguments.work)
    held_out = json.dumps(split.held_out, indent=1, ensure_ascii=False)
    (HERE / "held_out.json").write_text(held_out + "\n", encoding="utf-8")
    write_sample(split)
    start = time.perf_counter()
    model = train(split, arguments.work, arguments.steps)
    print(f"trained in {time.perf_counter() - start:.0f} s")
    export(model, arguments.out)
    evaluate.report(split, arguments.out)


if __name__ == "__main__":
    main()
