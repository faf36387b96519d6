"""From configuration to objects. The only caller of hydra.utils.instantiate, and where every contract is checked."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.optim.lr_scheduler import ConstantLR

from dlrun import metrics as task_metrics
from dlrun import splitting
from dlrun.config import schema
from dlrun.contracts import Augment, Batch, DataSpec, Logger, Metric, Splits, Task
from dlrun.engine.callbacks import Callback
from dlrun.engine.footprint import Allocations
from dlrun.engine.foreign import adapt
from dlrun.engine.loaders import gather
from dlrun.engine.memory import INSTEAD, DeviceMemoryError, is_out_of_memory
from dlrun.errors import ConfigError, ContractError, DlrunError
from dlrun.optim.durations import resolve, resolve_arguments
from dlrun.optim.parameter_groups import parameter_groups
from dlrun.optim.rules import ParameterGroups
from dlrun.optim.schedule import Schedule

Part = Mapping[str, Any]
COMMON_DATA = set(schema.Data.__dataclass_fields__)
TRAINER_GROUPS = {
    "clip": schema.Clip,
    "gradient_noise": schema.GradientNoise,
    "sam": schema.Sam,
    "lookahead": schema.Lookahead,
    "swa": schema.Swa,
    "penalty": schema.Penalty,
    "distill": schema.Distill,
    "early_stopping": schema.EarlyStopping,
}
SPLITTING = set(inspect.signature(splitting.complete).parameters) - {"splits"}


def trainer_settings(config: Part) -> schema.Trainer:
    """`trainer` as the typed object it describes."""
    values = dict(config["trainer"])
    for name, group in TRAINER_GROUPS.items():
        if values.get(name) is not None:
            values[name] = group(**values[name])
    settings = schema.Trainer(**{**values, "clip": values.get("clip") or schema.Clip()})
    if settings.compile and settings.checkpoint_activations:
        raise ConfigError(
            "trainer.checkpoint_activations=true does nothing with trainer.compile=true, which decides for itself what "
            "is computed twice; drop one."
        )
    return settings


def data_settings(config: Part) -> schema.Data:
    """The settings in `data` that every data set shares."""
    return schema.Data(**{key: value for key, value in config["data"].items() if key in COMMON_DATA})


def build_data(config: Part) -> Splits:
    """All three splits, carved, encoded and normalised."""
    node = config["data"]
    factory = _factory("data", {key: value for key, value in node.items() if key not in COMMON_DATA})
    wanted = _parameters(factory)
    shared = {key: value for key, value in node.items() if key in COMMON_DATA and key in wanted}
    if shared.get("batch_size") == "auto":
        raise ConfigError(
            f"data.batch_size=auto is found by training steps, but data={node['_target_']} needs the size to make its "
            "examples: give a number."
        )
    splits = _call("data", node, factory, **shared)
    if not isinstance(splits, Splits):
        raise ContractError(f"data={node['_target_']} must return dlrun.contracts.Splits, got {type(splits).__name__}.")
    return splitting.complete(adapt(splits), **{key: value for key, value in node.items() if key in SPLITTING})


def build_model(config: Part, spec: DataSpec, inputs: Callable[[int], Any] | None = None) -> nn.Module:
    """The model, initialised. Draws from the global generator, so seed it first.

    Args:
        inputs: gives so many training inputs, ready for the model, to an initialisation that asks for them.

    Raises: ContractError if model and data do not fit; the message names both shapes.
    """
    node = config["model"]
    factory = _factory("model", node)
    arguments = {"spec": spec} if "spec" in _parameters(factory) else {}
    model = _call("model", node, factory, **arguments)
    if not isinstance(model, nn.Module):
        raise ContractError(f"model={node['_target_']} must give a torch.nn.Module, got {type(model).__name__}.")
    if config.get("init"):
        factory = _factory("init", config["init"])
        _call(
            "init", config["init"], factory, model, **({"inputs": inputs} if "inputs" in _parameters(factory) else {})
        )
    return model


def inputs_for(splits: Splits, prepare: Callable[[Batch, int], Batch], device: torch.device) -> Callable[[int], Any]:
    """What gives so many inputs, all if there are fewer, evenly spaced over the training split, ready for a model."""

    def inputs(count: int) -> Any:
        total = len(splits.train)
        index = torch.arange(min(count, total)) * total // min(count, total)
        return prepare(gather(splits.train, index).map(lambda tensor: tensor.to(device)), 0).inputs

    return inputs


def check_fit(model: nn.Module, loss: nn.Module, splits: Splits, prepare: Callable[[Batch, int], Batch]) -> int:
    """One forward pass of two examples, without touching the generators or the model's statistics.

    Returns: the bytes that model and loss take for an example, at most at one time.
    Raises: ContractError if the model cannot read the data, or its outputs are not what the loss needs.
    """
    spec, was_training = splits.spec, model.training
    where = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = prepare(
        gather(splits.train, torch.arange(min(2, len(splits.train)))).map(lambda tensor: tensor.to(where)), 0
    )
    model.eval()
    name, made = type(model).__name__, Allocations()
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), torch.no_grad(), made:
        try:
            outputs = model(*batch.arguments)
        except DlrunError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise DeviceMemoryError(
                    f"out of memory in a forward pass of the model ({name}) with {len(batch)} examples: {INSTEAD}"
                ) from error
            raise ContractError(
                f"the model ({name}) cannot read data={spec.name}, {spec.kind.plural} of shape {spec.shape}: "
                f"{_one_line(error)}."
            ) from error
        by_token = spec.task in (Task.LANGUAGE_MODELLING, Task.SEQUENCE_TO_SEQUENCE)
        expected = (*batch.targets.shape[: 2 if by_token else 1], spec.num_outputs)
        if not isinstance(outputs, Tensor) or tuple(outputs.shape) != expected:
            got = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            each = "one row per token of each example" if by_token else "one row per example"
            raise ContractError(
                f"the model ({name}) gives outputs of shape {got} for data={spec.name}, whose task "
                f"({spec.task.value}) needs {expected}: {each}, {spec.num_outputs} outputs each."
            )
        try:
            loss(outputs, batch.targets)
        except Exception as error:
            raise ContractError(f"the loss does not fit data={spec.name}: {_one_line(error)}.") from error
    model.train(was_training)
    return -(-made.peak // len(batch))


def check_smallest_batch(
    model: nn.Module, splits: Splits, prepare: Callable[[Batch, int], Batch], batch_size: int, drop_last: bool
) -> None:
    """Train on one example, on a copy, if an epoch has a batch of one; batch norm cannot, and would at its end say so.

    Raises: ContractError.
    """
    count = len(splits.train)
    last = 0 if drop_last else count % batch_size
    if 1 not in (count, batch_size, last):
        return
    where = next((p.device for p in model.parameters()), torch.device("cpu"))
    batch = prepare(gather(splits.train, torch.zeros(1, dtype=torch.long)).map(lambda tensor: tensor.to(where)), 0)
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []), torch.no_grad():
        try:
            copy.deepcopy(model).train()(*batch.arguments)
        except Exception as error:
            raise ContractError(
                f"data.batch_size={batch_size} makes a batch of one example out of {count:,}, on which the model "
                f"({type(model).__name__}) cannot train: {_one_line(error)}; choose another, or data.drop_last=true."
            ) from error


def build_loss(config: Part, splits: Splits) -> nn.Module:
    """The loss; `spec` and `class_counts` are given to factories that take them."""
    node = config.get("loss") or {"_target_": "dlrun.losses.auto"}
    factory = _factory("loss", node)
    wanted = _parameters(factory)
    arguments: dict[str, Any] = {"spec": splits.spec} if "spec" in wanted else {}
    if "class_counts" in wanted and node.get("class_counts") is None and splits.spec.task is Task.CLASSIFICATION:
        arguments["class_counts"] = torch.bincount(
            splitting.targets_of(splits.train), minlength=splits.spec.num_outputs
        ).tolist()
    loss = _call("loss", node, factory, **arguments)
    if not callable(loss):
        raise ContractError(
            f"loss={node['_target_']} must be callable as loss(outputs, targets), got {type(loss).__name__}."
        )
    return loss  # type: ignore[no-any-return]


def build_metrics(spec: DataSpec, scores: Sequence[str] = (), *, training: bool = False) -> list[Metric]:
    """Fresh metrics of the task, and the `scores` that `trainer.metrics` names.

    Args:
        training: only those that cost next to nothing in every step.

    Raises: ConfigError if the task has no such scores.
    """
    metrics = task_metrics.for_task(spec, training=training)
    return [*metrics, build_scores(spec, scores)] if scores else metrics


def build_all_metrics(spec: DataSpec) -> list[Metric]:
    """Fresh metrics of the task and all scores that suit the data."""
    return build_metrics(spec, task_metrics.applicable(spec))


def answers_in(metrics: Sequence[Metric]) -> task_metrics.Answers | None:
    """What the scores among some metrics have collected; None where there are none."""
    return next((metric.answers() for metric in metrics if isinstance(metric, task_metrics.Scores)), None)


def build_scores(spec: DataSpec, names: Sequence[str]) -> task_metrics.Scores:
    """Scores of all examples of a split together.

    Raises: ConfigError if the data are no classification, or have too few classes for a score to tell anything.
    """
    suitable = task_metrics.applicable(spec)
    unsuitable = [name for name in names if name not in suitable]
    if unsuitable:
        has = f"those of {spec.num_outputs} classes" if suitable else "no such scores"
        raise ConfigError(
            f"trainer.metrics: {unsuitable[0]} is not for data={spec.name}, a {spec.task.value} task, which has {has}; "
            f"{'choose from ' + ', '.join(suitable) if suitable else 'leave trainer.metrics=[]'}."
        )
    return task_metrics.Scores(names)


def choose_monitor(spec: DataSpec, wanted: str | None, scores: Sequence[str] = ()) -> tuple[str, bool]:
    """The monitored metric and whether higher is better, among those of the task and the `scores` chosen.

    Raises: ConfigError if the task does not have that metric.
    """
    directions = {"loss": False}
    for metric in build_metrics(spec, scores):
        directions |= metric.higher_is_better
    known = {f"val/{name}": higher for name, higher in directions.items()}
    name = f"val/{task_metrics.MONITOR[spec.task]}" if wanted is None else wanted
    if name not in known:
        hint = " The training split is not monitored." if name.startswith("train/") else ""
        if name.removeprefix("val/") in task_metrics.applicable(spec):
            hint = f" To have that one: trainer.metrics=[{name.removeprefix('val/')}]."
        raise ConfigError(
            f"trainer.early_stopping.monitor must be one of {', '.join(known)} for a {spec.task.value} task, "
            f"got '{name}'.{hint}"
        )
    return name, known[name]


def parameter_rules(config: Part) -> ParameterGroups:
    """`optimizer.param_groups` as the typed object it describes."""
    return ParameterGroups(**(config["optimizer"].get("param_groups") or {}))


def build_optimizer(config: Part, model: nn.Module) -> Any:
    """The optimizer over parameter groups that follow `optimizer.param_groups`; fused where torch has it.

    On a CUDA device its learning rates are tensors there, if it takes them so, for its steps to be captured in a graph.
    For a model in which nothing learns, one without parameters that is never asked for a step.
    """
    if not any(p.requires_grad for p in model.parameters()):
        return torch.optim.SGD([{"params": []}], lr=0.0)
    node, rules = dict(config["optimizer"]), parameter_rules(config)
    node.pop("param_groups", None)
    factory = _factory("optimizer", node)
    parameters = _parameters(factory)
    lr = node.get("lr", _default(parameters, "lr", 1e-3))
    decay = node.get("weight_decay", _default(parameters, "weight_decay", 0.0))
    groups = parameter_groups(model, lr=float(lr), weight_decay=float(decay or 0.0), rules=rules)
    if not decay:
        for group in groups:
            group.pop("weight_decay")
    extra = {"fused": True} if _can_fuse(parameters, node, model) else {}
    on_cuda = all(p.device.type == "cuda" for p in model.parameters())
    if on_cuda and "capturable" in parameters and node.get("capturable") is None and not node.get("differentiable"):
        extra["capturable"] = True
    optimizer = _call("optimizer", node, factory, groups, **extra)
    for group in optimizer.param_groups if on_cuda else ():
        if group.get("capturable") or (isinstance(optimizer, torch.optim.SGD) and group["fused"]):
            group["lr"] = torch.tensor(float(group["lr"]), device=group["params"][0].device)
    if not hasattr(optimizer, "step") or not hasattr(optimizer, "param_groups"):
        raise ContractError(f"optimizer={node['_target_']} gives no optimizer but {type(optimizer).__name__}.")
    return optimizer


def build_schedule(
    config: Part,
    optimizer: Any,
    *,
    total_steps: int,
    steps_per_epoch: int,
    higher_is_better: bool,
    hold: tuple[int, float] | None = None,
) -> Schedule:
    """The schedule behind its warm-up, every length resolved to optimizer steps (or to its own interval).

    Args:
        hold: (step, learning rate): from that step on the rate is constant.
    """
    if total_steps == 0:
        return Schedule(optimizer, partial(ConstantLR, factor=1.0), 0, steps_per_epoch, "step")
    node = dict(config.get("scheduler") or {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 1.0})
    interval, warmup = node.pop("interval", "step"), node.pop("warmup", 0)
    warmup_steps = resolve(
        warmup, unit="step", steps_per_epoch=steps_per_epoch, total_steps=total_steps, key="scheduler.warmup"
    )
    if warmup_steps == total_steps == 1:
        warmup_steps = 0  # a share of the only step of a try-out
    if warmup_steps >= total_steps:
        raise ConfigError(
            f"scheduler.warmup must be shorter than training, which has {total_steps} steps, got {warmup} "
            f"({warmup_steps} steps)."
        )
    node = resolve_arguments(
        node,
        unit="epoch" if interval == "epoch" else "step",
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps - warmup_steps,
    )
    for group in optimizer.param_groups:
        if group.get("until") is not None:
            group["until_steps"] = resolve(
                group["until"],
                unit="step",
                steps_per_epoch=steps_per_epoch,
                total_steps=total_steps,
                key="optimizer.param_groups.until",
            )
    factory = _factory("scheduler", node)
    if interval == "metric" and "mode" in _parameters(factory):
        factory = partial(factory, mode="max" if higher_is_better else "min")

    def make(stand_in: torch.optim.Optimizer) -> Any:
        return _call("scheduler", node, factory, stand_in)

    return Schedule(optimizer, make, warmup_steps, steps_per_epoch, interval, hold)


def build_augment(config: Part, spec: DataSpec) -> list[Augment]:
    """The augmentations in the order given."""
    return [_with_spec(f"augment.{name}", node, spec) for name, node in (config.get("augment") or {}).items()]


def build_callbacks(config: Part) -> list[Callback]:
    """The user's own callbacks."""
    built = []
    for name, node in (config.get("callbacks") or {}).items():
        callback = _call(f"callbacks.{name}", node, _factory(f"callbacks.{name}", node))
        if not isinstance(callback, Callback):
            raise ContractError(
                f"callbacks.{name} must be a dlrun.engine.callbacks.Callback, got {type(callback).__name__}."
            )
        built.append(callback)
    return built


def check_loggers(config: Part) -> None:
    """Let each logger that has a `require()` say what it lacks, before anything is written."""
    for name, node in (config.get("logger") or {}).items():
        factory = _factory(f"logger.{name}", node)
        require = getattr(factory.func if isinstance(factory, partial) else factory, "require", None)
        if require is not None:
            require()


def build_loggers(config: Part, folder: str, start_step: int) -> list[Logger]:
    """The loggers; those that take `folder` get the run's directory, those that take `start_step` where it goes on."""
    built = []
    for name, node in (config.get("logger") or {}).items():
        factory = _factory(f"logger.{name}", node)
        offered = {"folder": folder, "start_step": start_step}
        arguments = {key: value for key, value in offered.items() if key in _parameters(factory)}
        built.append(_call(f"logger.{name}", node, factory, **arguments))
    return built


def _with_spec(key: str, node: Part, spec: DataSpec) -> Any:
    factory = _factory(key, node)
    return _call(key, node, factory, **({"spec": spec} if "spec" in _parameters(factory) else {}))


def _factory(key: str, node: Part) -> Callable[..., Any]:
    """A callable with the arguments of the configuration bound.

    Always a partial that is called in a second step: hydra.utils.instantiate would take a DataSpec, a dataclass, or a
    list of parameter groups among its arguments for configuration and rebuild them.
    """
    try:
        made = instantiate(OmegaConf.create({**node, "_partial_": True}), _convert_="all")
    except HydraException as error:
        raise _explain(key, node, error.__cause__ or error) from error
    assert callable(made)
    return made  # type: ignore[no-any-return]


def _call(key: str, node: Part, factory: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    try:
        return factory(*positional, **named)
    except (DlrunError, KeyboardInterrupt):
        raise
    except Exception as error:
        raise _explain(key, node, error) from error


def _explain(key: str, node: Part, error: BaseException) -> DlrunError:
    """What a part's factory raised, as one sentence."""
    if isinstance(error, DlrunError):
        return error
    return ContractError(f"{key}: {node.get('_target_')} cannot be built: {_one_line(error)}.")


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return text if len(text) < 400 else text[:400] + " …"


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The parameters of the callable behind a partial, bound ones included."""
    function = factory.func if isinstance(factory, partial) else factory
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _default(parameters: Mapping[str, inspect.Parameter], name: str, otherwise: float) -> Any:
    parameter = parameters.get(name)
    return otherwise if parameter is None or parameter.default is inspect.Parameter.empty else parameter.default


def _can_fuse(parameters: Mapping[str, inspect.Parameter], node: Part, model: nn.Module) -> bool:
    """Whether one kernel may do the whole update: faster, also on the CPU."""
    if "fused" not in parameters or any(node.get(key) is not None for key in ("fused", "foreach", "differentiable")):
        return False
    return all(p.device.type in ("cpu", "cuda", "mps") and p.is_floating_point() for p in model.parameters())
