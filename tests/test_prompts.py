import pickle
import re
from string import ascii_letters

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from skxma._estimators.vocabulary import common_words
from skxma.prompts import TEMPLATES, clean_name, make_prompts, resolve_templates


@pytest.mark.parametrize(
    ("key", "theirs"), [("imagenet", "OPENAI_IMAGENET_TEMPLATES"), ("simple", "SIMPLE_IMAGENET_TEMPLATES")]
)
def test_templates_are_those_of_openai(key, theirs):
    import open_clip

    expected = [template("hot dog") for template in getattr(open_clip, theirs)]
    assert make_prompts("hot dog", key) == expected
    assert len(expected) == {"imagenet": 80, "simple": 7}[key]


def test_templates_pickle():
    assert pickle.loads(pickle.dumps(TEMPLATES)) == TEMPLATES


def test_every_key_resolves_to_its_templates():
    assert set(TEMPLATES) == {"imagenet", "simple", "photo", "bare"}
    for key, templates in TEMPLATES.items():
        assert resolve_templates(key) == templates
        assert all(template.count("{}") == 1 for template in templates)


@pytest.mark.parametrize(
    ("templates", "expected"),
    [
        ("a satellite photo of {}.", ("a satellite photo of {}.",)),
        (["{} from above", "a map of {}"], ("{} from above", "a map of {}")),
        (("{}",), ("{}",)),
    ],
)
def test_format_strings_resolve_to_themselves(templates, expected):
    assert resolve_templates(templates) == expected


def test_unknown_key_lists_the_known_ones_and_the_closest():
    with pytest.raises(
        ValueError, match=r"(?s)'imagnet'.*'imagenet', 'simple', 'photo', 'bare'.*Did you mean 'imagenet'"
    ):
        resolve_templates("imagnet")


def test_template_without_braces_is_refused_within_a_list():
    with pytest.raises(ValueError, match="'a photo'"):
        resolve_templates(["a photo of a {}.", "a photo"])


def test_empty_list_of_templates_is_refused():
    with pytest.raises(ValueError, match="empty"):
        resolve_templates([])


def test_template_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="function"):
        resolve_templates([lambda name: f"a {name}"])


@pytest.mark.parametrize(
    ("label", "expected"),
    [("hot_pepper", "hot pepper"), (" two  spaces ", "two spaces"), ("T-shirt", "T-shirt"), (3, "3"), ("a__b", "a b")],
)
def test_clean_name(label, expected):
    assert clean_name(label) == expected


@given(st.text())
def test_clean_name_is_idempotent(label):
    assert clean_name(clean_name(label)) == clean_name(label)


def without_article(name):
    """Whether a template's article stays before the name."""
    return not re.match(r"(an?|the|my|some|one) +\S", name, re.IGNORECASE)


def test_synonyms_multiply_with_templates():
    assert make_prompts(["sofa", "couch"], ["a {}.", "the {}."]) == ["a sofa.", "the sofa.", "a couch.", "the couch."]


@given(st.text(alphabet=ascii_letters + "{}%0: ", min_size=1).filter(str.strip).filter(without_article))
@example("A ")
def test_braces_and_percent_signs_in_a_name_are_words_like_others(name):
    assert make_prompts(name, "photo") == ["a photo of a " + name + "."]


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        ([], ValueError, "at least one name"),
        ("  ", ValueError, "blank"),
        (["cat", ""], ValueError, "blank"),
        ([3], TypeError, "int 3"),
        (3, TypeError, r"int 3; pass str\(name\)"),
    ],
)
def test_bad_names_are_refused(name, error, match):
    with pytest.raises(error, match=match):
        make_prompts(name, "photo")


def test_vocabulary_holds_about_400_different_clean_words():
    assert 380 <= len(common_words()) <= 450
    assert len({word.lower() for word in common_words()}) == len(common_words())
    assert all(word == clean_name(word) and word.isascii() for word in common_words())


def test_vocabulary_is_no_benchmark_in_disguise():
    import open_clip

    shared = {word.lower() for word in common_words()} & {name.lower() for name in open_clip.IMAGENET_CLASSNAMES}
    assert len(shared) < len(common_words()) / 3


def test_a_description_with_an_article_replaces_that_of_the_template():
    assert make_prompts("a sleepy tabby", ["a photo of a {}.", "art of the {}.", "{} from above"]) == [
        "a photo of a sleepy tabby.",
        "art of a sleepy tabby.",
        "a sleepy tabby from above",
    ]
    assert make_prompts("The Beatles", "photo") == ["a photo of The Beatles."]


def test_a_description_loses_its_article_after_an_adjective_of_the_template():
    templates = ["a photo of the large {}.", "a origami {}", "a photo of a hard to see {}", "a photo of {}", "la {}"]
    assert make_prompts("a sleepy tabby", templates) == [
        "a photo of the large sleepy tabby.",
        "a origami sleepy tabby",
        "a photo of a hard to see sleepy tabby",
        "a photo of a sleepy tabby",
        "la a sleepy tabby",
    ]


@pytest.mark.parametrize("templates", sorted(TEMPLATES))
def test_no_bundled_template_gives_a_description_two_articles(templates):
    for prompt in make_prompts("a sleepy tabby", templates):
        assert not re.search(r"\b(a|the|my|one|many) (\w+ )?a sleepy", prompt), prompt


def test_templates_that_differ_in_the_article_alone_give_one_prompt_of_a_description():
    assert make_prompts("a red car", ["a {}.", "the {}."]) == ["a red car."]


def test_a_sentence_is_a_prompt_already():
    sentence = "A heron stands still in shallow water."
    assert make_prompts(["heron", sentence], ["a {}.", "the {}."]) == ["a heron.", "the heron.", sentence]
    assert make_prompts("Acme Inc.", "photo") == ["a photo of a Acme Inc.."]


def test_descriptions_reach_the_text_cache():
    from skxma import XMAdapterClassifier
    from skxma.datasets import load_emoji

    emoji = load_emoji()
    two = emoji.target_names[:2]
    shots = np.isin(emoji.target, two)
    images, labels = emoji.images[shots], emoji.target[shots]
    plain = XMAdapterClassifier("tiny", vocabulary=None).fit(images, labels)
    names = {name: [name, "a small bright sign"] for name in two.tolist()}
    described = XMAdapterClassifier("tiny", vocabulary=None, class_names=names).fit(images, labels)
    assert abs(plain.text_features_ - described.text_features_).max() > 0.01
