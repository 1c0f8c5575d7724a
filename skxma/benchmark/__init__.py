"""Compare methods over data sets, numbers of shots and seeds."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skxma.benchmark._names import METHODS
    from skxma.benchmark._problem import Problem
    from skxma.benchmark._report import format_table, plot_curves, summarize
    from skxma.benchmark._results_file import read_results
    from skxma.benchmark._runner import run_benchmark

# Imported on first use: the command line reads the names of methods before it knows whether anything is to run.
_HOMES = {
    "METHODS": "_names",
    "Problem": "_problem",
    "format_table": "_report",
    "plot_curves": "_report",
    "read_results": "_results_file",
    "run_benchmark": "_runner",
    "summarize": "_report",
}

__all__ = ["METHODS", "Problem", "format_table", "plot_curves", "read_results", "run_benchmark", "summarize"]

if not TYPE_CHECKING:  # to a type checker a name that is not above is an error

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            return getattr(import_module(f"skxma.benchmark.{_HOMES[name]}"), name)
        raise AttributeError(f"module 'skxma.benchmark' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
