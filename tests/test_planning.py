"""What `dlrun plan` says a step needs."""

import pytest

from dlrun.config.compose import compose
from dlrun.planning import plan

WORDS = ["data=digits", "model=mlp", "model.widths=[256,128]", "model.norm=none", "data.batch_size=32"]


def memory(*words: str) -> dict[str, int]:
    return plan(compose([*WORDS, *words]).config).memory


def test_memory_by_what_needs_it_counted_by_hand():
    found = memory("optimizer=adamw", "trainer.ema=0.9")
    weights = 4 * (64 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10)
    assert found["weights"] == found["gradients"] == found["averages"] == weights
    assert found["optimizer"] == 2 * weights + 4 * 6  # a step count for each tensor
    batch = 32 * 64 * 4
    # Kept: the inputs, both hidden layers after relu, log-probabilities, targets; and 4 bytes of the loss.
    assert batch + 32 * (256 + 128) * 4 <= found["activations"] <= batch + 32 * (256 + 128 + 2 * 10) * 4 + 32 * 8 + 16
    standing = found["weights"] + found["optimizer"] + found["averages"] + found["data"]
    assert found["peak"] >= standing + found["gradients"]
    assert found["peak"] <= standing + found["gradients"] + 2 * found["activations"]


def test_micro_batches_and_a_second_evaluation_do_not_add_up():
    one = memory()["activations"]
    assert memory("trainer.sam={}")["activations"] == one
    parts = memory("data.batch_size=8", "trainer.accumulate=4")["activations"]
    assert parts < one / 2


def test_every_group_has_its_own_rate():
    made = plan(compose([*WORDS, "optimizer.lr=0.1", "optimizer.param_groups.layer_decay=0.5"]).config)
    groups = made.training.train_step.optimizer.param_groups
    shown = [float(line.split("lr up to ")[1].split(",")[0]) for line in made.groups]
    peak = max(made.lrs) / groups[0]["lr_factor"]
    assert shown == [pytest.approx(peak * group["lr_factor"], rel=5e-3) for group in groups]
    assert len(set(shown)) > 1
