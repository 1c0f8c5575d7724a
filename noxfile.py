"""Tasks of a contributor: `nox -l` lists them, `nox -s tests -- tests/test_prompts.py` passes arguments on.

Each session installs what CI installs, in an environment of its own that is kept. In an environment that has it all,
`nox --no-venv --no-install -s SESSION` starts at once.
"""

from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "tests"]

CONSTRAINTS = ".ci/constraints.txt"
# small models gain nothing from threads, and two workers would take each other's
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
# British spellings, parts of identifiers and file names included
SPELLING = [
    "codespell",
    "--builtin=en-GB_to_en-US",
    "--dictionary=-",
    "--dictionary=.ci/american.txt",
    "--regex=[A-Z]?[a-z]+|[A-Z]+",
    "--check-filenames",
    "--ignore-words-list=writeable",  # the name of numpy's flag
    "--skip=*CHANGELOG.md,*docs/changes/*",  # names that were once public
]
# percent of lines and branches together that all tests reach
LEAST_COVERAGE = "97"


def install(session: nox.Session, *packages: str) -> None:
    """Install packages in the releases that CI uses."""
    session.install("-c", CONSTRAINTS, *packages)


@nox.session
def tests(session: nox.Session) -> None:
    """Run the quick tests."""
    install(session, "-e", ".[test]")
    session.run("pytest", "-n", "2", *session.posargs, env=ONE_THREAD)


@nox.session
def slow(session: nox.Session) -> None:
    """Run the slow tests."""
    install(session, "-e", ".[test]")
    session.run("pytest", "-n", "2", "-m", "slow", "--durations=5", *session.posargs, env=ONE_THREAD)


@nox.session
def weekly(session: nox.Session) -> None:
    """Run the tests that are too slow for every change."""
    install(session, "-e", ".[test]")
    session.run("pytest", "-n", "2", "-m", "weekly", "--durations=5", *session.posargs, env=ONE_THREAD)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run all tests and fail if they reach too little of the package."""
    install(session, "-e", ".[test]", "pytest-cov")
    command = ["pytest", "-n", "2", "-m", "slow or not slow", "--cov", f"--cov-fail-under={LEAST_COVERAGE}"]
    session.run(*command, *session.posargs, env=ONE_THREAD)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, typos, spellings, pyproject.toml and who imports whom; needs neither torch nor a minute."""
    install(session, "ruff", "codespell", "validate-pyproject[all]", "import-linter")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
    session.run(*SPELLING)
    session.run("validate-pyproject", "pyproject.toml")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package."""
    install(session, "-e", ".[test]", "mypy")
    session.run("mypy", *session.posargs)


@nox.session
def spelling(session: nox.Session) -> None:
    """List British spellings; part of lint."""
    install(session, "codespell")
    session.run(*SPELLING, *session.posargs)


@nox.session
def imports(session: nox.Session) -> None:
    """Check the contract of imports in pyproject.toml; part of lint."""
    install(session, "import-linter")
    session.run("lint-imports", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in docs/_build/html; a warning is an error."""
    install(session, "-e", ".[test,docs]")
    session.run("sphinx-build", "-q", "-W", "--keep-going", *session.posargs, "docs", "docs/_build/html")


@nox.session(venv_backend="none")
def oldest(session: nox.Session) -> None:
    """Run the quick tests on the oldest releases that pyproject.toml allows; takes Python 3.12 where there is one."""
    folder = str(Path(".nox", "oldest-releases").resolve())
    session.run("bash", ".ci/oldest", "install", folder, external=True)
    session.run("bash", ".ci/oldest", "test", folder, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """Time fits, predictions and encoding with pytest-benchmark."""
    install(session, "-e", ".[test,bench]")
    command = ["pytest", "benchmarks/bench_speed.py", "--benchmark-columns=min,median", "--benchmark-sort=min"]
    session.run(*command, *session.posargs)


@nox.session
def compare(session: nox.Session) -> None:
    """Time the commit of a week ago and this one side by side; fail if anything takes a fifth longer."""
    install(session, "-e", ".[test]")
    command = ["git", "rev-list", "-1", "--before=7 days ago", "HEAD"]
    # a young repository has no commit of a week ago
    before = str(session.run(*command, external=True, silent=True) or "").strip() or "HEAD"
    session.run("python", "benchmarks/compare_commits.py", before, "HEAD", *session.posargs, env=ONE_THREAD)


@nox.session
def mutants(session: nox.Session) -> None:
    """Run the mutants of the mathematics that have no result yet; fail if one survives without a reason."""
    install(session, "-e", ".[test,proofs]")
    session.run("python", "benchmarks/proofs/mutation.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Let two processes share a store for half an hour; fail if memory or open files grow. Linux only."""
    install(session, "-e", ".[test,proofs]")
    command = ["python", "benchmarks/proofs/soak.py", "--minutes", "30", "--out", "benchmarks/proofs/soak.json"]
    session.run(*command, *session.posargs)


@nox.session
def device(session: nox.Session) -> None:
    """Run all operations on the simulated device, and put faults into a copy that the tests must notice."""
    install(session, "-e", ".[test]")
    command = ["python", "benchmarks/proofs/device.py", "--out", "benchmarks/proofs/device.json"]
    session.run(*command, *session.posargs, env=ONE_THREAD)


@nox.session
def proofs(session: nox.Session) -> None:
    """Run all tests and write docs/proofs.md, with the mutants, the soak and the device as last measured."""
    install(session, "-e", ".[test,proofs]")
    session.run("python", "benchmarks/proofs/trust.py", "--docs", *session.posargs, env=ONE_THREAD)
