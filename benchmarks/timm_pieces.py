"""timm's pieces put together as its train.py does, which is not in the wheel: `pip install 'dlrun[timm]'`.

Data set, loader, optimizer, scheduler and meters are timm's; no augmentation, fp32, AdamW, cosine. On a CPU train.py
moves batches by hand (`--no-prefetcher`), reads the loss off each step and asks the scheduler at each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice

import torch
from torch import nn

EPOCHS = 10  # that the schedule is made for


def rounds_of_steps(
    model: nn.Module,
    data: tuple[str, str],
    shape: tuple[int, int, int],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    batch_size: int,
    steps: int,
    workers: int,
) -> Callable[[], float]:
    """Seconds of so many steps, the first of each round not counted, as it waits for the workers.

    Args:
        data: name and root, as timm.data.create_dataset takes them; "" is a folder of images.
        statistics: means and standard deviations of the channels.

    Raises: ImportError without timm.
    """
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import AverageMeter

    name, root = data
    mode = "RGB" if shape[0] == 3 else "L"
    loader = create_loader(
        create_dataset(name, root=root, split="train", is_training=True, batch_size=batch_size, input_img_mode=mode),
        input_size=shape,
        batch_size=batch_size,
        is_training=True,
        no_aug=True,
        mean=statistics[0],
        std=statistics[1],
        num_workers=workers,
        device=torch.device("cpu"),
        use_prefetcher=False,
        persistent_workers=workers > 0,
    )
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.01)
    scheduler, _ = create_scheduler_v2(optimizer, "cosine", num_epochs=EPOCHS, updates_per_epoch=len(loader))
    loss_of = nn.CrossEntropyLoss()
    updates = 0

    def round_of_steps() -> float:
        nonlocal updates
        losses, data_time, step_time = AverageMeter(), AverageMeter(), AverageMeter()
        model.train()
        began = end = time.perf_counter()
        for i, (images, targets) in enumerate(islice(loader, steps + 1)):
            data_time.update(time.perf_counter() - end)
            loss = loss_of(model(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            updates += 1
            losses.update(loss.item(), len(images))
            step_time.update(time.perf_counter() - end)
            scheduler.step_update(num_updates=updates, metric=losses.avg)
            end = time.perf_counter()
            if i == 0:
                began = end
        return time.perf_counter() - began

    return round_of_steps
