"""`dlrun completion SHELL`: the script that lets a shell complete dlrun's words; and the words themselves.

The scripts hold no knowledge: at each tab they call `dlrun completion --words LINE`. What comes after a command, that
command's module says: FLAGS are its options, and `offer` answers from conf/ and outputs/ as they are at that moment.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import suppress

from dlrun.commands import COMMANDS
from dlrun.commands.offers import FOLDER_FLAGS
from dlrun.errors import DlrunError, UsageError, did_you_mean

HELP = """dlrun completion bash > ~/.local/share/bash-completion/completions/dlrun
dlrun completion zsh > "${fpath[1]}/_dlrun"
dlrun completion fish > ~/.config/fish/completions/dlrun.fish

Then open a new shell and type: dlrun train model=<TAB>
For this bash only: eval "$(dlrun completion bash)"

dlrun completion bash|zsh|fish prints the script."""

BASH = r"""# Tab completion of dlrun for bash. For every new shell:
#   mkdir -p ~/.local/share/bash-completion/completions
#   dlrun completion bash > ~/.local/share/bash-completion/completions/dlrun
# For this shell only: eval "$(dlrun completion bash)"
_dlrun() {
    local IFS=$'\n' line="${COMP_LINE:0:COMP_POINT}" current before
    COMPREPLY=($("$1" completion --words "$line" 2>/dev/null))
    # Bash ends words at = and :, and replaces only what follows the last of them.
    current="${line##*[[:space:]]}"
    if [[ $COMP_WORDBREAKS == *=* && $current == *[=:]* ]]; then
        before="${current%"${current##*[=:]}"}"
        COMPREPLY=("${COMPREPLY[@]#"$before"}")
    fi
    # After "model=" or "trainer." more is to come, so no blank.
    if [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *[=.] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o bashdefault -o default -F _dlrun dlrun
"""

ZSH = r"""#compdef dlrun
# Tab completion of dlrun for zsh. For every new shell, once, then start a new one:
#   dlrun completion zsh > "${fpath[1]}/_dlrun"
# For this shell only, after compinit: eval "$(dlrun completion zsh)"
_dlrun() {
    local -a answers
    local line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    answers=(${(f)"$($words[1] completion --words "$line" 2>/dev/null)"})
    if (( ! $#answers )); then
        _files
        return
    fi
    # After "model=" or "trainer." more is to come, so no blank.
    compadd -Q -S '' -- ${(M)answers:#*[=.]}
    compadd -Q -- ${answers:#*[=.]}
}
if [[ $funcstack[1] == _dlrun ]]; then _dlrun "$@"; else compdef _dlrun dlrun; fi
"""

FISH = r"""# Tab completion of dlrun for fish. For every new shell:
#   dlrun completion fish > ~/.config/fish/completions/dlrun.fish
# For this shell only: dlrun completion fish | source
function __dlrun_words
    set -l answers (dlrun completion --words (commandline -cp) 2>/dev/null)
    if test (count $answers) -gt 0
        printf '%s\n' $answers
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c dlrun -f -a '(__dlrun_words)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(arguments: list[str]) -> int:
    """Print a shell's script, or (for the scripts) the words that may stand at the end of a line.

    Raises: UsageError if no known shell is named.
    """
    if arguments[:1] == ["--words"]:
        with suppress(DlrunError):  # a broken file in --config-dir is no reason to write into the line being typed
            for word in words(" ".join(arguments[1:])):
                print(word)
        return 0
    if len(arguments) != 1 or arguments[0] not in SCRIPTS:
        given = " ".join(arguments)
        near = did_you_mean(given, SCRIPTS)
        raise UsageError(f"dlrun completion needs one of {', '.join(SCRIPTS)}, got '{given}'.{near}")
    print(SCRIPTS[arguments[0]], end="")
    return 0


def words(line: str) -> list[str]:
    """What the last word of a command line may become; nothing where the shell knows better (files)."""
    *typed, current = line.split() + ([""] if line[-1:].isspace() or not line else [])
    typed = typed[1:]
    if not typed:
        candidates = ["--help", "--version"] if current.startswith("-") else list(COMMANDS)
        return [word for word in candidates if word.startswith(current)]
    command = importlib.import_module(f"dlrun.commands.{typed[0]}") if typed[0] in COMMANDS else None
    if current == "-" or current.startswith("--"):
        candidates = [*getattr(command, "FLAGS", ()), "--help"]
    elif command is None or typed[-1] in FOLDER_FLAGS or not hasattr(command, "offer"):
        candidates = []
    else:
        candidates = list(command.offer(typed[1:], current))
    return [word for word in candidates if word.startswith(current)]


def offer(typed: Sequence[str], current: str) -> Iterator[str]:
    """The shells, at a tab."""
    if not typed:
        yield from SCRIPTS
