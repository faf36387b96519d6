"""The validation loss of a nanoGPT checkpoint and of a dlrun run by one function, in a process of its own.

    DLRUN_DATA=data python benchmarks/nanogpt_alike.py --nanogpt nanoGPT --checkpoint nanoGPT/out/ckpt.pt --run RUN

In fp32 on the whole validation text, the last 111,540 characters, in windows of the context's length. `nanogpt_gpu.py`
calls this at the end of a race; what it prints is for that.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dlrun import load
from dlrun.contracts import DataSpec
from dlrun.text import numbering

MARK = "EVALUATED "


def prepare(folder: Path) -> str:
    """What nanoGPT's prepare.py makes of the text. Returns: the validation text."""
    text = Path(os.environ["DLRUN_DATA"], "tinyshakespeare.txt").read_text()
    cut = int(len(text) * 0.9)
    data = folder / "data" / "shakespeare_char"
    if not (data / "val.bin").exists():
        data.mkdir(parents=True, exist_ok=True)
        characters = sorted(set(text))
        number = {character: i for i, character in enumerate(characters)}
        meta = {"vocab_size": len(characters), "itos": dict(enumerate(characters)), "stoi": number}
        (data / "meta.pkl").write_bytes(pickle.dumps(meta))
        for name, part in (("train", text[:cut]), ("val", text[cut:])):
            np.array([number[character] for character in part], np.uint16).tofile(data / f"{name}.bin")
    return text[cut:]


def held_out_loss(forward: Callable[[Any], Any], numbers: list[int], context: int, device: str) -> float:
    """Nats per character of the whole text, read in windows of `context` characters, the last one shorter."""
    tokens = torch.tensor(numbers, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    count = (len(tokens) - 1) // context
    cut = count * context
    whole = [(tokens[:cut].view(count, context), tokens[1 : cut + 1].view(count, context))]
    rest = [(tokens[cut:-1][None], tokens[cut + 1 :][None])] if cut < len(tokens) - 1 else []
    batches = [pair for x, y in whole for pair in zip(x.split(64), y.split(64), strict=True)] + rest
    with torch.inference_mode():
        for x, y in batches:
            total += torch.nn.functional.cross_entropy(forward(x).flatten(0, 1).float(), y.flatten(), reduction="sum")
    return float(total) / (len(tokens) - 1)


def of_checkpoint(folder: Path, checkpoint: Path, text: str, device: str) -> float:
    """The loss of nanoGPT's model, from the file that its train.py writes."""
    sys.path.insert(0, str(folder))
    from model import GPT, GPTConfig

    content = torch.load(checkpoint, map_location=device, weights_only=True)
    model = GPT(GPTConfig(**content["model_args"])).to(device).eval()
    model.load_state_dict({key.removeprefix("_orig_mod."): value for key, value in content["model"].items()})
    meta = pickle.loads((folder / "data/shakespeare_char/meta.pkl").read_bytes())
    numbers = [meta["stoi"][character] for character in text]
    # Without targets it gives the last position only.
    return held_out_loss(lambda x: model(x, x)[0], numbers, model.config.block_size, device)


def of_run(run: Path, text: str, device: str) -> float:
    """The loss of the best weights of a run."""
    spec = DataSpec.from_dict(torch.load(run / "checkpoints/best.pt", weights_only=True)["spec"])
    assert spec.vocabulary is not None
    model = load(str(run)).model.to(device)
    return held_out_loss(model, list(numbering(spec.vocabulary)(text)), spec.shape[0], device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanogpt", type=Path, default=Path("nanoGPT"))
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--run", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    text = prepare(options.nanogpt)
    result: dict[str, float] = {}
    if options.checkpoint and options.checkpoint.exists():
        result["nanogpt"] = of_checkpoint(options.nanogpt, options.checkpoint, text, device)
    for run in options.run:
        if (run / "summary.json").exists():
            result[run.name] = of_run(run, text, device)
    print(MARK + json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
