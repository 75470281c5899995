"""`bench completion`: the scripts of the shells, and what could stand at the end of a command line.

The commands' own parsers say what that is: their options, and of each argument what completes it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from bench.commands import COMMANDS
from bench.commands.parsing import Parser
from bench.commands.words import among, overrides, starting
from bench.errors import BenchError, nearest

BASH = r"""# eval "$(bench completion bash)"
_bench() {
    local line=${COMP_LINE:0:COMP_POINT} word candidate
    word=${line##*[[:space:]]}
    COMPREPLY=()
    while IFS= read -r candidate; do
        # Readline replaces only what follows the last '=' of a word.
        [[ $word == *=* && $COMP_WORDBREAKS == *=* ]] && candidate=${candidate#"${word%=*}="}
        COMPREPLY+=("$candidate")
    done < <("${COMP_WORDS[0]}" completion --query "$line" 2>/dev/null)
}
complete -o nospace -o default -F _bench bench
"""

ZSH = r"""#compdef bench
# eval "$(bench completion zsh)", after compinit. Behind an open bracket zsh completes quoted words only:
# 'reg=[spik<TAB>
_bench() {
    local -a candidates
    candidates=("${(@f)$(${words[1]} completion --query "${(j: :)words[1,CURRENT-1]} $PREFIX" 2>/dev/null)}")
    compadd -Q -S '' -- ${candidates:#} || _files
}
# reg=[a,b] is no pattern.
alias bench='noglob bench'
compdef _bench bench
"""

FISH = r"""# bench completion fish | source
complete -c bench -f -a '(bench completion --query (commandline -cp) 2>/dev/null | string match -r "\S+"
    or __fish_complete_path (commandline -ct))'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def parser() -> Parser:
    """The command line."""
    parser = Parser("completion")
    parser.add_argument("shell", nargs="?", completes=[among(*SCRIPTS)], help="bash, zsh or fish")
    parser.add_argument("--query", metavar="LINE", help=argparse.SUPPRESS)
    return parser


def main(arguments: Sequence[str]) -> None:
    """Print a shell's script, or the words that could stand at the end of a line.

    Raises:
        BenchError: there is no script for the shell.
    """
    options = parser().parse_intermixed_args(arguments)
    if options.query is not None:
        # Nothing at all where there is nothing: only then the shell completes a file's name.
        print("".join(f"{word}\n" for word in complete(options.query)), end="")
        return
    if options.shell is None:
        raise BenchError(f"for which shell? There are: {', '.join(sorted(SCRIPTS))}.")
    if options.shell not in SCRIPTS:
        raise BenchError(f"no script for the shell '{options.shell}'. {nearest(options.shell, SCRIPTS)}")
    print(SCRIPTS[options.shell], end="")


def complete(line: str) -> list[str]:
    """The words that could stand at the end of `line`; one that is complete ends in a space.

    Args:
        line: the command line up to the cursor, the program's name included.
    """
    *before, word = line.split(" ") if line else ["", ""]
    before = [part for part in before if part][1:]
    if not before:
        return starting(word, COMMANDS)
    command, *before = before
    if command not in COMMANDS:
        return []
    candidates = offered(COMMANDS[command].load().parser(), word, before)
    return [candidate for candidate in candidates if candidate.rstrip() not in before]


def offered(parser: Parser, word: str, before: Sequence[str]) -> Iterator[str]:
    """What a parser would take after the words `before`, of which `word` is the beginning."""
    actions = [action for action in parser.completed if action.help != argparse.SUPPRESS]
    options = {name: action for action in actions for name in action.option_strings}
    waiting: argparse.Action | None = None  # an option whose value comes next
    count = 0  # of the words that are neither options nor their values
    for part in before:
        if waiting is not None:
            waiting = None
        elif part.startswith("-"):
            waiting = options[part] if part in options and options[part].nargs != 0 else None
        else:
            count += 1
    option, given, value = word.partition("=")
    if waiting is not None:
        yield from starting(word, waiting.choices or ())
    elif option in options and given:
        yield from (f"{option}={choice}" for choice in starting(value, options[option].choices or ()))
    elif word.startswith("-"):
        yield from starting(word, options)
    else:
        positionals = [action for action in actions if not action.option_strings]
        # Every one but `*` takes one word.
        left = [action for place, action in enumerate(positionals) if action.nargs == "*" or place >= count]
        kinds = parser.completed[left[0]] if left else ()
        for kind in kinds:
            yield from kind(word, before)
        if not word and overrides not in kinds:
            # Among the many settings of a run they would be lost: there a dash asks for them.
            optional = [action for action in actions if action.option_strings and action.dest != "help"]
            yield from starting(word, [action.option_strings[-1] for action in optional])
