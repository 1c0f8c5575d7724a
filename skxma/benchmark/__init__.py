"""Compare methods over data sets, numbers of shots and seeds."""

from skxma.benchmark._problem import Problem
from skxma.benchmark._report import format_table, plot_curves, summarize
from skxma.benchmark._results_file import read_results
from skxma.benchmark._runner import METHODS, run_benchmark

__all__ = ["METHODS", "Problem", "format_table", "plot_curves", "read_results", "run_benchmark", "summarize"]
