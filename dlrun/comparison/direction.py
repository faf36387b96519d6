"""Whether more of a quantity is better: the one place that says it of names, where no metric object is at hand."""

LOWER = frozenset({"loss", "nll", "brier", "ece", "mae", "mse", "rmse", "mape", "smape", "perplexity", "error"})
COSTS = frozenset({"seconds", "parameters", "epochs", "steps"})  # of two that are equally good, the cheaper


def higher_is_better(name: str) -> bool:
    """Whether a run with more of `name` ("val/accuracy", "seconds") is the better one.

    An unknown metric is taken for a score, unless its name ends as an error's does (`val/own_loss`).
    """
    own = name.rpartition("/")[2].removesuffix("_scaled")
    if own in COSTS:
        return False
    return not (own in LOWER or own.rpartition("_")[2] in LOWER or own.startswith("bits_per_"))


def arrow(name: str) -> str:
    """The direction as a sign."""
    return "↑" if higher_is_better(name) else "↓"
