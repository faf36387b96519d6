"""Which parameters learn at which step: frozen backbones, linear probes, gradual unfreezing, parts that end early."""

from collections.abc import Iterator, Mapping

from torch import nn

from dlrun.errors import ConfigError
from dlrun.optim.parameter_groups import matches, nearest


class Freezing:
    """Keeps parameters from learning until their step has come.

    A frozen parameter gets no gradient, and no optimizer of torch's touches what has none. A module all of whose
    parameters are frozen is in evaluation mode as a whole: it extracts features, with the running statistics of its
    norms as they are and without dropout.

    Attributes:
        phase: how many of the changes that are to come have come.

    Args:
        thaw_steps: pattern -> optimizer step from which the parameters learn, None for never. A pattern is a glob over
            parameter names or the name of a module; of those that match a parameter, the last one counts. Parameters
            that none matches are left as the model made them.
        end_steps: pattern -> optimizer step from which the parameters do not learn any more; the first that matches
            counts, and without one they learn to the end. Their gradients then cost nothing.

    Raises: ConfigError if a pattern matches nothing, or nothing learns at first but something does later, or nothing
        learns to the end.
    """

    def __init__(
        self, model: nn.Module, thaw_steps: Mapping[str, int | None], end_steps: Mapping[str, int] | None = None
    ) -> None:
        self.model = model
        self._thaw_steps: dict[nn.Parameter, int | None] = {}
        named = list(model.named_parameters(remove_duplicate=False))  # tied weights by either name
        for pattern, step in thaw_steps.items():
            matched = [parameter for name, parameter in named if matches(name, pattern)]
            if not matched:
                raise ConfigError(
                    f"trainer.freeze: '{pattern}' matches no parameter of the model; nearest are "
                    f"{', '.join(nearest(pattern, [name for name, _ in named]))}."
                )
            self._thaw_steps |= dict.fromkeys(matched, step)
        self._end_steps: dict[nn.Parameter, int] = {}
        for pattern, end in (end_steps or {}).items():
            for name, parameter in named:
                if parameter.requires_grad and matches(name, pattern):
                    self._end_steps.setdefault(parameter, end)
        for parameter in self._end_steps:
            self._thaw_steps.setdefault(parameter, 0)
        self._changes = {step for step in (*self._thaw_steps.values(), *self._end_steps.values()) if step}
        self._applied: int | None = None
        self.phase = 0
        self._asleep: list[nn.Module] = []
        for parameter, step in self._thaw_steps.items():
            parameter.requires_grad_(step is not None)  # what will ever learn: the optimizer gets those
        self._refuse_idle_start(named)
        self._refuse_idle_end(named)

    def at(self, step: int) -> bool:
        """Set the model up for optimizer step `step`; a function of the step alone. Call it before every step.

        Returns: whether what learns may have changed.
        """
        changes = self._applied is None or (step != self._applied + 1) or step in self._changes
        if changes:
            for parameter, thaws in self._thaw_steps.items():
                ends = self._end_steps.get(parameter)
                parameter.requires_grad_(thaws is not None and step >= thaws and (ends is None or step < ends))
            was_asleep, self._asleep = self._asleep, list(_without_gradients(self.model))
            for module in was_asleep:
                module.train()
            self.phase = sum(change <= step for change in self._changes)
        self._applied = step
        for module in self._asleep:
            if module.training:  # a validation has put the whole model back into training mode
                module.eval()
        return changes

    def _refuse_idle_end(self, named: list[tuple[str, nn.Parameter]]) -> None:
        learning = [parameter for _, parameter in named if parameter.requires_grad]
        if learning and all(parameter in self._end_steps for parameter in learning):
            raise ConfigError(
                "optimizer.param_groups.until lets no parameter learn to the end of training: name fewer there, or "
                "train for fewer trainer.epochs."
            )

    def _refuse_idle_start(self, named: list[tuple[str, nn.Parameter]]) -> None:
        learning = [self._thaw_steps.get(p, 0) or 0 for _, p in named if p.requires_grad]
        if learning and min(learning) > 0:
            raise ConfigError(
                f"trainer.freeze leaves nothing to train before step {min(learning)}: let some parameters learn from "
                "the start, as head does in trainer.freeze='{*: always, head: 0}'."
            )


def _without_gradients(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that have parameters, none of which learns."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        yield module
        return
    for child in module.children():
        yield from _without_gradients(child)
