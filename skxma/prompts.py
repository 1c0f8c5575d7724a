"""From class names to prompts: templates as format strings, which pickle, and names cleaned for reading."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

__all__ = ["clean_name", "make_prompts", "resolve_templates"]

# "imagenet" and "simple" are those of OpenAI's CLIP, in its order.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "imagenet": (
        "a bad photo of a {}.",
        "a photo of many {}.",
        "a sculpture of a {}.",
        "a photo of the hard to see {}.",
        "a low resolution photo of the {}.",
        "a rendering of a {}.",
        "graffiti of a {}.",
        "a bad photo of the {}.",
        "a cropped photo of the {}.",
        "a tattoo of a {}.",
        "the embroidered {}.",
        "a photo of a hard to see {}.",
        "a bright photo of a {}.",
        "a photo of a clean {}.",
        "a photo of a dirty {}.",
        "a dark photo of the {}.",
        "a drawing of a {}.",
        "a photo of my {}.",
        "the plastic {}.",
        "a photo of the cool {}.",
        "a close-up photo of a {}.",
        "a black and white photo of the {}.",
        "a painting of the {}.",
        "a painting of a {}.",
        "a pixelated photo of the {}.",
        "a sculpture of the {}.",
        "a bright photo of the {}.",
        "a cropped photo of a {}.",
        "a plastic {}.",
        "a photo of the dirty {}.",
        "a jpeg corrupted photo of a {}.",
        "a blurry photo of the {}.",
        "a photo of the {}.",
        "a good photo of the {}.",
        "a rendering of the {}.",
        "a {} in a video game.",
        "a photo of one {}.",
        "a doodle of a {}.",
        "a close-up photo of the {}.",
        "a photo of a {}.",
        "the origami {}.",
        "the {} in a video game.",
        "a sketch of a {}.",
        "a doodle of the {}.",
        "a origami {}.",
        "a low resolution photo of a {}.",
        "the toy {}.",
        "a rendition of the {}.",
        "a photo of the clean {}.",
        "a photo of a large {}.",
        "a rendition of a {}.",
        "a photo of a nice {}.",
        "a photo of a weird {}.",
        "a blurry photo of a {}.",
        "a cartoon {}.",
        "art of a {}.",
        "a sketch of the {}.",
        "a embroidered {}.",
        "a pixelated photo of a {}.",
        "itap of the {}.",
        "a jpeg corrupted photo of the {}.",
        "a good photo of a {}.",
        "a plushie {}.",
        "a photo of the nice {}.",
        "a photo of the small {}.",
        "a photo of the weird {}.",
        "the cartoon {}.",
        "art of the {}.",
        "a drawing of the {}.",
        "a photo of the large {}.",
        "a black and white photo of a {}.",
        "the plushie {}.",
        "a dark photo of a {}.",
        "itap of a {}.",
        "graffiti of the {}.",
        "a toy {}.",
        "itap of my {}.",
        "a photo of a cool {}.",
        "a photo of a small {}.",
        "a tattoo of the {}.",
    ),
    "simple": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "photo": ("a photo of a {}.",),
    "bare": ("{}",),
}


ARTICLE = re.compile(r"(an?|the|my|some|one) +(?=\S)", re.IGNORECASE)
SLOT_WITH_ARTICLE = re.compile(r"(?:\b(?:an?|the|my|one) )?\{\}")
# "the large {}", "a hard to see {}": the template's article stays, with the words that belong to it
SLOT_WITH_ADJECTIVE = re.compile(
    r"\b(?:many|(?:an?|the|my|one)(?: (?!(?:of|in|on|at|by|from|with|showing|depicting)\b)[\w-]+){1,3}) \{\}",
    re.IGNORECASE,
)
SENTENCE_WORDS = 4
SURROGATE = re.compile("[\ud800-\udfff]")


def resolve_templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the format strings that a user's choice of templates stands for.

    Parameters
    ----------
    templates : str or sequence of str
        A key of `TEMPLATES`, one format string with "{}" for the name, or several of them.

    Returns
    -------
    templates : tuple of str
        At least one, each with a "{}".

    Raises
    ------
    ValueError
        If a string is neither a key nor holds "{}", or the sequence is empty.
    TypeError
        If a template is not a string.
    """
    if isinstance(templates, str):
        if templates in TEMPLATES:
            return TEMPLATES[templates]
        templates = (templates,)
    resolved = tuple(templates)
    if not resolved:
        raise ValueError("templates is empty; pass at least one format string, such as 'a photo of a {}.'")
    for template in resolved:
        _check_template(template)
    return resolved


def _check_template(template: object) -> None:
    if not isinstance(template, str):
        raise TypeError(f"A template must be a string, got {type(template).__name__} {template!r:.80}.")
    if "{}" in template:
        return
    close = get_close_matches(template, TEMPLATES, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Template {template!r} holds no '{{}}' for the class name and is no known key; known keys: "
        f"{', '.join(map(repr, TEMPLATES))}.{hint}"
    )


def clean_name(label: object) -> str:
    """Turn a label into words: "hot_pepper" becomes "hot pepper".

    Parameters
    ----------
    label : object
        A class label; anything but a string is written as `str` writes it.

    Returns
    -------
    name : str
        The label with underscores as spaces, single spaces between its words, and letters in Unicode's composed form;
        case and hyphens stay.
    """
    return unicodedata.normalize("NFC", " ".join(str(label).replace("_", " ").split()))


def check_names(name: str | Sequence[str]) -> list[str]:
    """Return the names of a class as a list, and refuse what cannot be one.

    Parameters
    ----------
    name : str or sequence of str

    Raises
    ------
    ValueError
        There is no name, or one is blank or no text.
    TypeError
        A name is not a string.
    """
    if isinstance(name, str):
        names = [name]
    elif isinstance(name, Iterable):
        names = list(name)
    else:
        raise TypeError(
            f"A class name must be a string or several, got {type(name).__name__} {name!r}; pass str(name)."
        )
    if not names:
        raise ValueError("A class needs at least one name, got an empty list of synonyms.")
    for one in names:
        if not isinstance(one, str):
            raise TypeError(f"A class name must be a string, got {type(one).__name__} {one!r:.80}.")
        if not one.strip():
            raise ValueError(f"A class name must not be blank, got {one!r} among {names!r:.120}.")
        if SURROGATE.search(one):
            raise ValueError(
                f"A class name must be text, got {one!r:.80}, which holds bytes of another encoding than the file "
                "system's; rename the folder, or say with class_names what the class is called."
            )
    return names


def make_prompts(name: str | Sequence[str], templates: str | Sequence[str]) -> list[str]:
    """Fill every template with a class's name, or with each of its names and descriptions.

    A description that brings its own article ("a sleepy tabby") takes the place of the template's, and loses it after
    an adjective of the template ("the large sleepy tabby"). A sentence, of four words or more and ending in a full
    stop, is a prompt already and is sent as it is, once.

    Parameters
    ----------
    name : str or sequence of str
        The name, synonyms of it ("sofa", "couch"), or descriptions.
    templates : str or sequence of str
        As in `resolve_templates`.

    Returns
    -------
    prompts : list of str
        Name by name: for a sentence itself, for all else one prompt a template.

    Raises
    ------
    ValueError
        If there is no name, one is blank or no text, or a template is wrong.
    TypeError
        If a name or a template is not a string.
    """
    names = check_names(name)
    resolved = resolve_templates(templates)
    return [prompt for one in names for prompt in _fill(one, resolved)]


def _fill(name: str, templates: tuple[str, ...]) -> list[str]:
    """The prompts of one name or description."""
    if name.endswith(".") and len(name.split()) >= SENTENCE_WORDS:
        return [name]
    article = ARTICLE.match(name)
    if article:
        bare = name[article.end() :]
        # templates that differ in nothing but the article become one
        return list(
            dict.fromkeys(
                template.replace("{}", bare)
                if SLOT_WITH_ADJECTIVE.search(template)
                else SLOT_WITH_ARTICLE.sub(lambda _: name, template)
                for template in templates
            )
        )
    # replace, not format: a template or a name may hold other braces
    return [template.replace("{}", name) for template in templates]
