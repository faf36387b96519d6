"""`dlrun completion SHELL`: the script that lets a shell complete dlrun's words; and the words themselves.

The scripts hold no knowledge: at each tab they call `dlrun completion --words LINE`, which answers from conf/ and
outputs/ as they are at that moment, with the keys of whatever choices already stand on the line.
"""

import re
from collections.abc import Iterator
from contextlib import suppress

from dlrun.commands import COMMANDS
from dlrun.config.catalog import Catalog
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

CONFIG_FLAGS = ["--config-dir", "--config-path", "--config-name"]
HYDRA_FLAGS = ["--multirun", "--cfg", "--resolve", "--package", "--info", *CONFIG_FLAGS, "--hydra-help"]
FLAG_VALUES = {
    "--cfg": ["job", "hydra", "all"],
    "-c": ["job", "hydra", "all"],
    "--info": ["all", "config", "defaults", "defaults-tree", "plugins", "searchpath"],
}
EVALUATE_OPTIONS = {
    "split": ["train", "val", "test"],
    "checkpoint": ["best", "last", "snapshots"],
    "temperature": ["fit"],
    "mc_dropout": ["20"],
    "device": ["auto", "cpu", "cuda", "mps"],
}
PREDICT_OPTIONS = {
    "checkpoint": ["best", "last"],
    "output": [],
    "device": ["auto", "cpu", "cuda", "mps"],
    "tokens": [],
    "temperature": [],
    "top_k": [],
    "seed": [],
    "attention": [],
}
COMPARE_FLAGS = {
    "--metric": ["accuracy", "loss"],
    "--by": ["seconds", "parameters"],
    "--group-by": ["none"],
    "--where": [],
    "--columns": [],
    "--limit": ["0"],
    "--format": ["table", "markdown", "csv", "json", "latex"],
    "--versus": ["1", "1,2"],
    "--mcnemar": [],
    "--plot": [],
    "--plot-by": [],
    "--plot-x": ["epoch", "step", "time"],
}
PROFILE_OPTIONS: dict[str, list[str]] = {"steps": ["50"], "out": []}
BENCH_OPTIONS: dict[str, list[str]] = {"device": ["auto", "cpu", "cuda", "mps"], "json": []}
TUNE_OPTIONS: dict[str, list[str]] = {
    "tune.sampler": ["tpe", "gp", "cmaes", "random", "qmc", "grid", "nsga2"],
    "tune.pruner": ["median", "hyperband", "asha", "patient", "none"],
    "tune.budget.trials": ["50"],
    "tune.budget.time": ["30m"],
    "tune.budget.device_hours": ["2"],
    "tune.objectives": ["[val/accuracy,seconds]"],
    "tune.storage": ["journal"],
    "tune.seeds": ["5"],
    "tune.jobs": ["2"],
}
FOLDER_FLAGS = {"--config-dir", "-cd", "--config-path", "-cp"}  # the shell completes folders itself
SCHEMAS = {"trainer": "Trainer", "data": "Data", "optimizer": "Optimizer", "scheduler": "Scheduler"}


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
    elif current == "-" or current.startswith("--"):
        candidates = _flags(typed[0])
    else:
        candidates = list(_arguments(typed[0], typed[1:], current))
    return [word for word in candidates if word.startswith(current)]


def _flags(command: str) -> list[str]:
    own = {
        "train": HYDRA_FLAGS,
        "plan": CONFIG_FLAGS,
        "profile": CONFIG_FLAGS,
        "tune": ["--config-dir"],
        "list": ["--config-dir"],
        "bench": ["--quick"],
        "compare": list(COMPARE_FLAGS),
    }
    return [*own.get(command, []), "--help"]


def _arguments(command: str, typed: list[str], current: str) -> Iterator[str]:
    positional = [word for word in typed if not word.startswith("-")]
    if typed and typed[-1] in FOLDER_FLAGS:
        return
    if command == "completion" and not positional:
        yield from SCRIPTS
    elif command == "list":
        yield from _list_words(Catalog(_config_dir(typed)), positional)
    elif command == "tune":
        if current.startswith("tune."):
            yield from _options(TUNE_OPTIONS, current)
        else:
            yield from _overrides(Catalog(_config_dir(typed)), typed, current)
    elif command in {"train", "plan", "profile"}:
        if typed and typed[-1] in FLAG_VALUES:
            yield from FLAG_VALUES[typed[-1]]
        else:
            yield from _overrides(Catalog(_config_dir(typed)), typed, current)
            if command == "profile" and "." not in current:
                yield from _options(PROFILE_OPTIONS, current)
    elif command == "compare":
        if typed and (offered := COMPARE_FLAGS.get(typed[-1])):
            yield from offered
        else:
            yield from _runs(current)
    elif command == "bench":
        yield from _options(BENCH_OPTIONS, current)
    elif command in {"resume", "evaluate", "predict"}:
        if not positional:
            yield from _runs(current)
        elif command == "evaluate":
            yield from _options(EVALUATE_OPTIONS, current)
        elif command == "predict" and current:  # at an empty word the shell offers files
            yield from _options(PREDICT_OPTIONS, current)


def _config_dir(typed: list[str]) -> str | None:
    for i, word in enumerate(typed):
        option, equals, value = word.partition("=")
        if option in {"--config-dir", "-cd"}:
            return value if equals else (typed[i + 1] if i + 1 < len(typed) else None)
    return None


def _list_words(catalog: Catalog, positional: list[str]) -> Iterator[str]:
    if not positional:
        yield from catalog.groups
    elif len(positional) == 1:
        yield from (choice.name for choice in catalog.choices(positional[0]))


def _options(values: dict[str, list[str]], current: str) -> Iterator[str]:
    name, equals, _ = current.partition("=")
    yield from (f"{name}={value}" for value in values.get(name, ())) if equals else (f"{name}=" for name in values)


def _runs(current: str) -> Iterator[str]:
    if "/" in current:
        return
    from dlrun.runs.directory import all_runs

    yield "last"
    yield from (path.name for path in reversed(all_runs()))


def _overrides(catalog: Catalog, typed: list[str], current: str) -> Iterator[str]:
    """Groups, keys and values, as `model=`, `model.widths=`, `model=cnn`, `trainer.precision=bf16`."""
    mark = re.match(r"[+~]*", current)
    sign = mark[0] if mark else ""
    name, equals, value = current[len(sign) :].partition("=")
    if equals:
        done = value.rpartition(",")[0] + "," if "," in value else ""  # model=mlp,<TAB> in a sweep
        yield from (f"{sign}{name}={done}{option}" for option in _values(catalog, typed, name))
    elif "." in name:
        keys = catalog.keys(name.partition(".")[0], catalog.selected(typed).get(name.partition(".")[0]))
        yield from (f"{sign}{key.name}=" for key in keys)
    else:
        yield from (f"{sign}{group}=" for group in catalog.groups)
        yield from (f"{sign}{key.name}=" for key in catalog.top_keys())
        if name:  # the dotted forms only when asked for, or an empty line would offer everything twice
            selected = catalog.selected(typed)
            yield from (
                f"{sign}{g}." for g in catalog.groups if g.startswith(name) and catalog.keys(g, selected.get(g))
            )


def _values(catalog: Catalog, typed: list[str], name: str) -> list[str]:
    """The choices of a group; of a key its allowed words, or else its default, to be edited."""
    if name in catalog.groups:
        return [choice.name for choice in catalog.choices(name)]
    group, _, rest = name.partition(".")
    selected = catalog.selected(typed).get(group)
    keys = {key.name: key for key in (catalog.keys(group, selected) if rest else catalog.top_keys())}
    if name not in keys:
        return []
    default = keys[name].default
    choice = catalog.choice(group, selected) if selected else None
    options = _allowed_words(group, choice.target if choice else "", rest)
    if not options and default in {"true", "false"}:
        return ["true", "false"]
    return options or ([default] if re.fullmatch(r"[\w.+-]+", default) else [])


def _allowed_words(group: str, target: str, argument: str) -> list[str]:
    """The values of an argument annotated with Literal, by dlrun's own parts and settings."""
    from dlrun.config.signatures import signature_of
    from dlrun.config.values import allowed, shown

    # Only dlrun's: reading the signature of a torch class takes longer than a person waits for a tab.
    targets = [target] if target.startswith("dlrun.") else []
    targets += [f"dlrun.config.schema.{SCHEMAS[group]}"] if group in SCHEMAS else []
    for path in targets:
        signature = signature_of(path)
        parameter = signature.parameters.get(argument) if signature else None
        rule = allowed(parameter.annotation, signature.module) if signature and parameter else None
        if rule is not None and rule.choices:
            others = [value for value in (True, False, None) if rule.accepts(value) and value not in rule.choices]
            return [shown(value).strip("'") for value in [*rule.choices, *others]]
    return []
