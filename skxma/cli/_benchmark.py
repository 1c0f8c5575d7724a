"""`skxma benchmark`: compare methods over data sets, shots and seeds."""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from typing import Any

from skxma._runtime.lines import counted
from skxma._runtime.progress import no_progress
from skxma.benchmark._names import METHODS, PROTOCOLS, SHOTS
from skxma.cli._help import Once, positive_count
from skxma.cli._streams import say


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add ``skxma benchmark`` to the subparsers of the command line; its `run` default is :func:`run`."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark",
        help="compare methods on data sets, shots and seeds",
        description="Compare few-shot methods. Every finished cell is kept in the results file: start again with the "
        "same file to go on. The table of what was asked for goes to stdout, progress to stderr. Give every encoder a "
        "file of its own.",
        epilog="example: skxma benchmark emoji features/*.npz --shots 1 4 --seeds 3 --plot curves.png",
    )
    parser.add_argument(
        "datasets",
        nargs="*",
        default=["emoji"],
        metavar="DATA",
        help="emoji, feature files (.npz), folders with a folder a class, tables (.csv) of path and label, or names of "
        "CoOp's data sets and of ImageNet's shifts, with /base, /novel or /all for a part of base-to-novel (default: "
        "emoji)",
    )
    parser.add_argument(
        "--methods", nargs="+", choices=list(METHODS), metavar="NAME", help=f"among {', '.join(METHODS)}"
    )
    parser.add_argument(
        "--shots", nargs="+", type=positive_count, default=list(SHOTS), metavar="K", help="(default: 1 2 4 8 16)"
    )
    parser.add_argument("--seeds", type=positive_count, default=5, metavar="N", help="random support sets (default: 5)")
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default="none",
        help="validation images to tune on: none, min(K, 4) a class, or a full set; or pool: half of the test images "
        "are learned from without their labels; or domain: other domains than those learned from are tested (styles of "
        "the emoji, corruptions of the images in a feature file, folders of domains, the shifts of imagenet); or "
        "base-to-novel: half of the classes is learned, the others are known by their text alone; or active: labels "
        "are asked for in rounds, --shots times as many as classes, of suggested and of random images (default: none)",
    )
    parser.add_argument(
        "--encoder", action=Once, metavar="NAME", help="for images (default: tiny for emoji, else ViT-B/32)"
    )
    parser.add_argument("--root", metavar="DIR", help="where CoOp's data sets lie")
    parser.add_argument("--memory", metavar="DIR", help="keep embeddings there from run to run")
    parser.add_argument("--out", default="benchmark.csv", metavar="CSV", help="results file (default: %(default)s)")
    parser.add_argument("--plot", metavar="PNG", help="draw accuracy by shots")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Run the command with its parsed arguments; 1 where a cell failed."""
    if arguments.plot:
        from skxma.inspection._figure_file import check_figure_file

        check_figure_file(arguments.plot, what="--plot")
    from skxma.benchmark._report import draw_curves, format_table, summary_of
    from skxma.benchmark._results_file import failures
    from skxma.benchmark._runner import run_cells

    with no_progress() if arguments.quiet else nullcontext():
        run = run_cells(
            arguments.datasets,
            arguments.methods,
            shots=arguments.shots,
            seeds=arguments.seeds,
            protocol=arguments.protocol,
            out=arguments.out,
            encoder=arguments.encoder,
            root=arguments.root,
            memory=arguments.memory,
            verbose=0 if arguments.quiet else 1,
        )
    summary = summary_of(run.rows)
    if summary:
        print(format_table(summary))
    kept = f", {run.n_kept} of them of an earlier run" if run.n_kept else ""
    say(f"results in {arguments.out}: {counted(len(run.rows), 'cell')}{kept}")
    failed = list(failures(run.rows))
    for line in failed:
        say(f"failed: {line}")
    if arguments.plot and summary:
        draw_curves(summary, arguments.plot)
    return int(bool(failed))
