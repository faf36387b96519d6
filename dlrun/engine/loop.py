"""The training loop. Read it from top to bottom: this is all there is to training."""

from torch import Tensor

from dlrun.engine.loaders import Draw
from dlrun.engine.meter import DivergedError
from dlrun.engine.training import Training


def fit(t: Training) -> None:
    """Train until the last step, an early stop, a signal or a divergence; `t.status` says which.

    Steps are counted from 0 over all epochs. A resumed run enters with `t.step` > 0, perhaps in mid-epoch, and does
    exactly what the uninterrupted run would have done.
    """
    start(t)
    try:
        with t.interrupt, t.advance.context():
            if t.total_steps == 0:  # nothing in the model learns: it is only evaluated
                validate(t)
            while t.status == "running" and t.step < t.total_steps:
                epoch, first = divmod(t.step, t.loader.steps_per_epoch)
                if first == 0:
                    begin_epoch(t)
                for draw in t.loader.draws(epoch, first):
                    train_on(t, draw)
                    if t.status != "running" or t.step == t.total_steps:
                        break
    except DivergedError as error:
        diverge(t, error)
    finish(t)


def train_on(t: Training, draw: Draw) -> None:
    """One optimizer step and what is due after it."""
    lr = t.lr
    t.train_step.measure_norm = logs_next(t)
    loss = t.advance(draw)  # make the batch; forward, backward, update: engine/step.py
    after_step(t, loss, draw.size, lr)


def logs_next(t: Training) -> bool:
    """Whether a record is due after the next step, with the norm of its gradient."""
    return (t.step + 1) % t.log_every == 0


def after_step(t: Training, loss: Tensor, size: int, lr: float) -> None:
    """What is due after a step on `size` examples, by the learning rate `lr`, that had this loss."""
    log_now = logs_next(t)
    t.meter.add(loss, size, lr)  # stays on the device
    t.step += 1
    t.samples += size
    if log_now:
        log(t, lr)
    if t.step % t.eval_every == 0 or t.step == t.total_steps:
        validate(t)
    t.callbacks.call("on_step_end", t)
    if t.interrupt.requested and t.status == "running":
        t.status = "interrupted"


def start(t: Training) -> None:
    """What comes before the first step, and again when a run resumes."""
    t.tick()
    t.model.train()
    t.callbacks.call("on_fit_start", t)


def begin_epoch(t: Training) -> None:
    """Tell the modules that want to know: a state carried along a text does not go on from its end to its beginning."""
    for module in t.model.modules():
        begin = getattr(module, "begin_epoch", None)
        if begin is not None:
            begin()


def diverge(t: Training, error: DivergedError) -> None:
    """The loss is no number any more: note where that was, and stop."""
    t.status = "diverged"
    t.divergence = {
        "step": error.step,
        "lr": error.lr,
        "loss": str(error.loss),
        "gradient_norm": t.last_gradient_norm,
    }


def finish(t: Training) -> None:
    """What comes after the last step, however training ended."""
    t.tick()
    if t.status == "running":
        t.status = "completed"
    t.callbacks.call("on_fit_end", t)


def log(t: Training, lr: float) -> None:
    """Record the mean loss of the last `log_every` steps; between validations nothing else waits for the device."""
    record = {"step": t.step, "epoch": t.progress, "train/step_loss": t.meter.mean_since_log(), "lr": lr}
    norm = t.train_step.gradient_norm
    if norm is not None:
        record["gradient_norm"] = float(norm)
        t.last_gradient_norm = (t.step, record["gradient_norm"])
    t.tick()
    t.callbacks.call("on_log", t, record)
    t.record(record)


def validate(t: Training) -> None:
    """Evaluate on the validation split and record it beside what training measured since the last time."""
    metrics = {"train/loss": t.meter.mean_since_validation()} if t.step else {}
    t.tick()
    for metric in t.metrics if t.step else ():
        metrics |= {f"train/{name}": value for name, value in metric.compute().items()}
    t.clear_metrics()
    metrics |= {f"val/{name}": value for name, value in t.validate(t.evaluated_model).items()}
    t.validation_seconds += t.tick()
    t.train_step.schedule.on_metric(metrics[t.monitor])
    t.callbacks.call("on_validate", t, metrics)
    t.record({"step": t.step, "epoch": t.progress, **metrics, "lr": t.lr})
