"""Small models with random weights, as timm, transformers and sentence-transformers write them to disk."""

from pathlib import Path

import torch

from skxma.encoder._torchvision_compat import ensure_importable

ensure_importable()

WORDS = ("a", "photo", "of", "the", "cat", "dog", "temple", "flower", "small", "large", "one", "two", ".")
CONTEXT = 12
SIZE = 32


def write_timm(folder: Path, architecture: str = "test_vit", seed: int = 0) -> Path:
    """A model of timm with a classifier, in the form of the hub."""
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = timm.create_model(architecture, num_classes=5)
    timm.models.save_for_hf(model, folder, model_config={"num_classes": 5}, safe_serialization=True)
    return folder


def _towers() -> tuple[dict, dict]:
    shared = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    special = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    text = {**shared, **special, "vocab_size": len(WORDS) + 4, "max_position_embeddings": CONTEXT}
    return text, {**shared, "image_size": SIZE, "patch_size": 16}


def _write_tokenizer(folder: Path) -> None:
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate(("<pad>", "<start>", "<end>", "<unknown>", *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 1), ("<end>", 2)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", bos_token="<start>", model_max_length=CONTEXT
    ).save_pretrained(folder)


def write_transformers(folder: Path, family: str, seed: int = 0) -> Path:
    """A model of transformers: "clip", "siglip" or "metaclip_2", or of images alone "dinov2", "vit", "convnext"."""
    import transformers

    text, vision = _towers()
    configs = {
        "clip": lambda: transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24),
        "metaclip_2": lambda: transformers.MetaClip2Config(text_config=text, vision_config=vision, projection_dim=24),
        "siglip": lambda: transformers.SiglipConfig(text_config=text, vision_config=vision),
        "dinov2": lambda: transformers.Dinov2Config(**vision),
        "dinov3": lambda: transformers.DINOv3ViTConfig(**vision),
        "vit": lambda: transformers.ViTConfig(**vision),
        "convnext": lambda: transformers.ConvNextConfig(hidden_sizes=[8, 8, 8, 16], depths=[1, 1, 1, 1]),
        "bert": lambda: transformers.BertConfig(**text),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(configs[family]())
        if family == "siglip":
            model.logit_scale.data.fill_(4.0)
            model.logit_bias.data.fill_(-9.0)
    model.save_pretrained(folder)
    processor = transformers.SiglipImageProcessor if family == "siglip" else transformers.CLIPImageProcessor
    size = {"height": SIZE, "width": SIZE} if family == "siglip" else {"shortest_edge": SIZE + 4}
    processor(size=size, crop_size={"height": SIZE, "width": SIZE}).save_pretrained(folder)
    _write_tokenizer(folder)
    return folder


def write_sentence_transformer(folder: Path, family: str = "clip", seed: int = 0) -> Path:
    """A model of sentence-transformers around one of transformers."""
    import sentence_transformers

    inner = write_transformers(folder / "transformers", family, seed)
    sentence_transformers.SentenceTransformer(str(inner), device="cpu").save(str(folder / "saved"))
    return folder / "saved"
