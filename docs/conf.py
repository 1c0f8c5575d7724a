"""Sphinx's settings: guide, reference and gallery in one `sphinx-build docs docs/_build/html`."""

import os
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import skxma

# the examples run on the weights of the bundled encoder; nothing is to be fetched
os.environ.setdefault("HF_HUB_OFFLINE", "1")

project = "skxma"
author = "The skxma developers"
copyright = author
version = release = skxma.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "_templates", "auto_examples/**/*.ipynb", "changes"]
smartquotes = False  # messages and names stay as they are typed
default_role = "py:obj"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

toc_object_entries_show_parents = "hide"
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False
# All of numpydoc's checks but these. See Also, examples, notes and an extended summary are written where they help
# (ES01, SA01, EX01, YD01); a summary may be a noun phrase of more than one line (SS05, SS06) beside the quotes (GL01,
# GL02); what a name and a type explain needs no description (PR07, RT03). A return value has a name (RT02), and
# parameters that many classes share are listed together, after a class's own, with a link to where they are described
# (PR03, PR04).
numpydoc_validation_checks = {
    "all", "ES01", "EX01", "GL01", "GL02", "PR03", "PR04", "PR07", "RT02", "RT03", "SA01", "SS05", "SS06", "YD01",
}  # fmt: skip
# what scikit-learn wrote; records, whose attributes are what they are made from; formulas, which say all in one line
numpydoc_validation_exclude = {
    r"\.get_params$", r"\.set_params$", r"\.get_metadata_routing$", r"\.set_\w+_request$", r"\.score$",
    r"\.set_output$", r"\.get_feature_names_out$", r"\.fit_transform$", r"\.set_callbacks$",
    r"\.Draw$", r"\.Tuned$", r"\.LabelInQuestion$", r"\.Problem$", r"\.ImageCache$", r"\.TextCache$",
    r"^skxma\.functional\.",
}  # fmt: skip

sphinx_gallery_conf = {
    "examples_dirs": str(Path(__file__).parent.parent / "examples" / "gallery"),
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"plot_\w+\.py$",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("skxma",),
    "backreferences_dir": "generated/backreferences",
    "download_all_examples": False,
    "show_memory": False,
    "capture_repr": (),
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 1,
    "reference_url": {"skxma": None},
}

html_math_renderer = "mathml"
html_theme = "pydata_sphinx_theme"
html_title = f"skxma {release}"
html_static_path = ["_static"]
html_css_files = ["skxma.css"]
html_show_sourcelink = False
templates_path = ["_templates"]
html_sidebars = {page: [] for page in ("index", "start", "faq", "results", "errors")}
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "show_prev_next": True,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def math_inline(translator, node):
    """Write a formula as MathML, which browsers draw without a script or a network."""
    translator.body.append(tex2mathml(node.astext(), as_block=False))
    raise nodes.SkipNode


def math_block(translator, node):
    """Write a displayed formula likewise."""
    translator.body.append(f'<div class="formula">{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app):
    """Register the writer of formulas."""
    app.add_html_math_renderer("mathml", inline_renderers=(math_inline, None), block_renderers=(math_block, None))
