"""`skxma completion`: scripts that complete commands and options in a shell, made from the parsers."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

PROGRAM = "skxma"


@dataclass(frozen=True)
class Option:
    """An option or a positional argument, as a shell completes it.

    Attributes
    ----------
    flags : list of str
        Empty for a positional argument.
    takes_value : bool
    choices : list of str
        The values, where they are a closed list; else file names are completed.
    about : str
        A few words.
    """

    flags: list[str]
    takes_value: bool
    choices: list[str]
    about: str


@dataclass(frozen=True)
class Command:
    """A command with its options."""

    name: str
    about: str
    options: list[Option]

    @property
    def flags(self) -> list[str]:
        """All flags."""
        return [flag for option in self.options for flag in option.flags]

    @property
    def choices(self) -> list[str]:
        """Values of the positional arguments."""
        return [choice for option in self.options if not option.flags for choice in option.choices]


def add_parser(commands: Any) -> None:
    """Add ``skxma completion`` to the subparsers of the command line."""
    parser = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description="Print a script for a shell that completes commands, options and their values. It is static: print "
        "it again after an update.",
        epilog="examples: skxma completion bash > ~/.local/share/bash-completion/completions/skxma    "
        "skxma completion zsh > ~/.zfunc/_skxma    skxma completion fish > ~/.config/fish/completions/skxma.fish",
    )
    parser.add_argument("shell", choices=list(SCRIPTS), help="which shell")
    parser.set_defaults(run=partial(run, commands))


def run(commands: Any, arguments: argparse.Namespace) -> None:
    """Print the script of a shell."""
    print(SCRIPTS[arguments.shell](list(describe_commands(commands))))


def describe_commands(commands: Any) -> Iterator[Command]:
    """Yield the commands of the subparsers of a command line."""
    about = {action.dest: action.help for action in commands._choices_actions}
    for name, parser in commands.choices.items():
        # argparse offers no other way to its options
        yield Command(name, _brief(about[name]), [_option(action) for action in parser._actions])


def _option(action: argparse.Action) -> Option:
    takes_value = action.nargs != 0
    return Option(
        list(action.option_strings), takes_value, [str(one) for one in action.choices or ()], _brief(action.help)
    )


def _brief(text: str | None) -> str:
    """The first words of a help text, without signs that a shell's description gives a meaning to."""
    brief = re.split(r"[(;:,\[]", text or "")[0].strip()
    return re.sub(r"[^\w\s./-]", "", brief)


def bash_script(commands: list[Command]) -> str:
    """Return the script for bash."""
    lines = [
        f"# completes {PROGRAM} in bash",
        f"_{PROGRAM}() {{",
        '    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} words=""',
        "    COMPREPLY=()",
        "    if ((COMP_CWORD == 1)); then",
        f"        words={_quoted([*(command.name for command in commands), '--help', '--version'])}",
        "    else",
        '        case "${COMP_WORDS[1]} $previous" in',
    ]
    for command in commands:
        for option in command.options:
            if option.flags and option.takes_value:
                pattern = " | ".join(f'"{command.name} {flag}"' for flag in option.flags)
                offered = f"words={_quoted(option.choices)}" if option.choices else "return"
                lines.append(f"            {pattern}) {offered} ;;")
    lines += ["            *)", '                case "${COMP_WORDS[1]} $current" in']
    for command in commands:
        lines.append(f'                    "{command.name} -"*) words={_quoted(command.flags)} ;;')
        if command.choices:
            lines.append(f'                    "{command.name} "*) words={_quoted(command.choices)} ;;')
    lines += [
        "                esac ;;",
        "        esac",
        "    fi",
        '    [ -z "$words" ] || COMPREPLY=($(compgen -W "$words" -- "$current"))',
        "}",
        # nothing of our own to offer: files
        f"complete -o default -F _{PROGRAM} {PROGRAM}",
    ]
    return "\n".join(lines)


def zsh_script(commands: list[Command]) -> str:
    """Return the script for zsh."""
    lines = [f"#compdef {PROGRAM}", f"# completes {PROGRAM} in zsh", f"_{PROGRAM}() {{", "    local -a commands"]
    lines += ["    commands=("]
    lines += [f"        {shlex.quote(f'{command.name}:{command.about}')}" for command in commands]
    lines += [
        "    )",
        "    if (( CURRENT == 2 )); then",
        "        _describe command commands",
        "        return",
        "    fi",
        "    local command=$words[2]",
        "    shift words",
        "    (( CURRENT-- ))",
        "    case $command in",
    ]
    for command in commands:
        specs: dict[str, None] = {}
        for option in command.options:
            value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
            about = f"[{option.about}]" if option.about else ""
            # each once: zsh refuses a second rule for the rest of the arguments
            spec = [f"{flag}{about}{value * option.takes_value}" for flag in option.flags] or [f"*{value}"]
            specs |= dict.fromkeys(spec)
        lines.append(f"        {command.name}) _arguments {' '.join(map(shlex.quote, specs))} ;;")
    lines += ["    esac", "}", f'if [ "$funcstack[1]" = "_{PROGRAM}" ]; then', f'    _{PROGRAM} "$@"', "else"]
    return "\n".join([*lines, f"    compdef _{PROGRAM} {PROGRAM}", "fi"])


def fish_script(commands: list[Command]) -> str:
    """Return the script for fish."""
    lines = [f"# completes {PROGRAM} in fish"]
    for command in commands:
        lines.append(
            f"complete -c {PROGRAM} -n __fish_use_subcommand -f -a {command.name} -d {shlex.quote(command.about)}"
        )
    for command in commands:
        start = f"complete -c {PROGRAM} -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            choices = f" -x -a {_quoted(option.choices)}" if option.choices else " -r" * option.takes_value
            flags = "".join(f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}" for flag in option.flags)
            if option.flags:
                lines.append(f"{start}{flags}{choices} -d {shlex.quote(option.about)}")
            elif option.choices:
                lines.append(f"{start} -f -a {_quoted(option.choices)}")
    return "\n".join(lines)


def _quoted(words: list[str]) -> str:
    return shlex.quote(" ".join(words))


SCRIPTS: dict[str, Callable[[list[Command]], str]] = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}
