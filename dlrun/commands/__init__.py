"""The commands, one module each: `HELP`, and `run(arguments) -> exit code`. This table is what `dlrun --help` shows."""

COMMANDS = {
    "train": "train a model, or with -m many, one run for each combination",
    "tune": "search for the best configuration, stopping bad trials early",
    "resume": "continue a run, a sweep or a search where it stopped, to the bit",
    "evaluate": "measure trained runs again, by every metric, on any split, alone or together",
    "compare": "a leaderboard of runs: means over seeds, tests between rows, pictures",
    "predict": "apply a trained run to images, tables, texts or time series",
    "plan": "show what train would do (shapes, parameters, steps, lr); trains nothing",
    "profile": "show where a training step's time goes, and what would make it faster",
    "bench": "measure this machine: arithmetic, memory, training steps; and what follows",
    "glossary": "terms of optimisation, with claims that are measured: list, show, run",
    "reproduce": "courses reproduced: their claims and printed numbers beside ours: list, run",
    "gradcheck": "check a configuration's gradients by finite differences",
    "list": "what can be chosen: data, models, optimizers, … and their keys",
    "doctor": "check this machine: versions, devices, data, anything that would bite",
    "completion": "tab completion for bash, zsh and fish",
}
