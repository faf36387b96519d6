"""Write the tables of docs/performance.md from the JSON files in benchmarks/results/, so that they cannot differ.

    python benchmarks/performance_page.py

What has not been measured yet is said with the command that does it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from measuring import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
MARK = re.compile(r"(<!-- (\w+): written by benchmarks/performance_page.py -->\n).*?(<!-- end of \2 -->)", re.DOTALL)
ARROW = "time relative to dlrun"
ARMS = ["eager", "graph", "compiled, graph"]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Markdown; the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(arm: Mapping[str, Any]) -> str:
    return f"{arm['median']:.3g} ({arm['min']:.3g} to {arm['max']:.3g})"


def arms_table(arms: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [[name, seconds(arm), f"{arm['ratio']:.2f}"] for name, arm in arms.items()]
    return table(["", "seconds: median (range)", ARROW], rows)


def measured_by(result: Mapping[str, Any]) -> str:
    return f"`{result['command']}`, {result['date']}, {result['machine']}, torch {result['torch']}."


def mnist_mlp(result: Mapping[str, Any]) -> str:
    parts = []
    for name in (key for key in result if key.startswith("batch")):
        arms = result[name].get("arms") or arms_of(result[name]["seconds"])
        parts.append(f"MNIST, MLP 784-128-128-128-10, {name}, one epoch:\n\n{arms_table(arms)}")
    return "\n\n".join([*parts, measured_by({"command": "python benchmarks/mnist_mlp.py", **result})])


def arms_of(times: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """`measuring.compared` of seconds that are no rounds, only the least, the median and the most."""
    medians = {arm: sorted(values)[len(values) // 2] for arm, values in times.items()}
    return {
        arm: {"median": medians[arm], "min": min(v), "max": max(v), "ratio": medians[arm] / medians["dlrun"]}
        for arm, v in times.items()
    }


def training_speed(result: Mapping[str, Any]) -> str:
    parts = []
    for entry in (value for value in result.values() if isinstance(value, dict) and "arms" in value):
        arms = arms_table(entry["arms"])
        parts.append(f"{entry['title']}, {entry['steps']} steps a round, {entry['rounds']} rounds:\n\n{arms}")
    apart = {name: value["largest difference"] for name, value in result.items() if name.endswith(", losses")}
    if apart:
        shown = ", ".join(f"{name.removesuffix(', losses')} {value:.1g}" for name, value in apart.items())
        parts.append(f"From equal weights on equal batches the losses of the first steps differ by at most: {shown}.")
    return "\n\n".join([*parts, measured_by(result)])


def timm_script(result: Mapping[str, Any]) -> str:
    parts = [
        f"{name}, whole process:\n\n{arms_table(entry['arms'])}"
        for name, entry in result.items()
        if isinstance(entry, dict)
    ]
    return "\n\n".join([*parts, measured_by(result)])


def nanogpt(result: Mapping[str, Any]) -> str:
    rows = []
    for i, one in enumerate(result["rounds"], start=1):
        reached = one["to nanoGPT's last loss"]
        here, there = reached["dlrun"], reached["nanogpt"]
        row = [f"round {i}, to {reached['loss']:.4f}"]
        for key in ("seconds", "without_evaluation"):
            row += (
                [f"{there[key]:.1f}", f"{here[key]:.1f}", f"{there[key] / here[key]:.2f}"]
                if here
                else ["not reached"] * 3
            )
        rows.append(row)
        total = [one[arm]["total_seconds"] for arm in ("nanogpt", "dlrun")]
        losses = [one[arm]["evaluations"][-1]["loss"] for arm in ("nanogpt", "dlrun")]
        row = [f"round {i}, all {result['steps']} steps", *(f"{t:.1f}" for t in total), f"{total[0] / total[1]:.2f}"]
        rows.append([*row, *(f"loss {loss:.4f}" for loss in losses), ""])
    head = ["", "nanoGPT, s", "dlrun, s", "ratio", "nanoGPT, s without evaluation", "dlrun, the same", "ratio"]
    return table(head, rows) + "\n\n" + measured_by(result)


def image_folder(result: Mapping[str, Any]) -> str:
    parts = []
    for what in ("data", "training"):
        for stretch, arms in result[what].items():
            said = "batches only" if what == "data" else "a small CNN learning from them"
            parts.append(f"{stretch.capitalize()} epoch, {said}:\n\n{arms_table(arms)}")
    return "\n\n".join([*parts, measured_by(result)])


def scaling(result: Mapping[str, Any]) -> str:
    peak = result["peaks"]
    rows = []
    for name in ("samples", "batch", "width", "workers"):
        for p in result[name]:
            limit = max(p["arithmetic_limit"], p["bytes_limit"])
            binding = "FLOPs" if p["arithmetic_limit"] >= p["bytes_limit"] else "bytes"
            row = [f"{name} {p[name]:.0f}", f"{p['seconds']:.3g}", f"{p['arithmetic_limit']:.2g}"]
            rows.append([*row, f"{p['bytes_limit']:.2g}", f"{p['seconds'] / limit:.1f} x {binding}"])
    peaks = f"Peaks: {peak['flops'] / 1e9:.0f} GFLOP/s in a matrix product, {peak['bytes'] / 1e9:.1f} GB/s in a copy."
    head = ["", "seconds per epoch", "limit by FLOPs", "limit by bytes", "over the higher limit"]
    memory = [
        [loader, *(f"{p['peak_mb']:.0f} ({p['data_mb']:.0f})" for p in points)]
        for loader, points in result["memory"].items()
    ]
    counts = ["", *["MB (of images)"] * len(memory[0][1:])]
    return "\n\n".join([peaks, table(head, rows), "Peak memory:", table(counts, memory), measured_by(result)])


def gpu_steps(result: Mapping[str, Any]) -> str:
    rows = []
    for name, job in ((name, job) for name, job in result.items() if isinstance(job, dict)):
        ms = job["median_ms"]
        arms = [
            f"{ms[arm]:.3f} ({ms['eager'] / ms[arm]:.1f} x)" if arm in ms else "" for arm in list(ms)[:1] + ARMS[1:]
        ]
        rows.append([name, *arms])
    head = ["milliseconds a step (speed against eager)", *ARMS]
    where = f"`python benchmarks/step.py`, {result['date']}, {result['device']}, torch {result['torch']}."
    return "\n\n".join([table(head, rows), where])


def step_cpu(result: Mapping[str, Any]) -> str:
    """What compiling costs before the first step, what it gains in each, and after how many the two are even."""
    rows = []
    for name, job in ((name, job) for name, job in result.items() if isinstance(job, dict)):
        eager, compiled = (job["median_ms"].get(arm) for arm in ("eager", "compiled"))
        if compiled is None:
            rows.append([name, f"{eager:.2f}", "fails", "", "", ""])
            continue
        cost = job["first_8_steps_s"]["compiled"] - job["first_8_steps_s"]["eager"]
        gain = (eager - compiled) / 1000
        even = f"{cost / gain:,.0f}" if gain > 0 else "never"
        rows.append([name, f"{eager:.2f}", f"{compiled:.2f}", f"{eager / compiled:.2f} x", f"{cost:.0f}", even])
    head = ["", "ms a step, eager", "compiled", "speed", "seconds to compile", "even after steps"]
    where = f"`python benchmarks/step.py --jobs …`, {result['date']}, {result['device']}, torch {result['torch']}."
    return "\n\n".join([table(head, rows), where])


def notebook(result: Mapping[str, Any]) -> str:
    rows = []
    for epochs in (200, 4000):
        of = [r for r in result["results"] if r.get("epochs") == epochs and "error" not in r]
        loops = [r["loop_seconds"] for r in of if r["arm"] == "dlrun"]
        theirs = next(r["extrapolated_seconds"] for r in of if r["arm"] == "notebook")
        bare = {r["kind"]: r["extrapolated_seconds"] for r in of if r["arm"] == "arithmetic"}
        whole = [r["process_seconds"] for r in of if r["arm"] == "process"]
        ours = median(loops)
        row = [f"{epochs} epochs", f"{ours:.3g} (n {len(loops)})", f"{median(whole):.1f}" if whole else "not measured"]
        rows.append([*row, f"{theirs:.0f}", f"{theirs / ours:.0f} x", f"{bare['eager']:.3g}", f"{bare['graph']:.3g}"])
    head = [
        "seconds",
        "dlrun, training",
        "whole process",
        "the notebook's loop",
        "ratio",
        "bare steps",
        "bare, captured",
    ]
    said = (
        "The notebook's loop and the bare steps, on one batch that lies ready, are extrapolated from 10 to 50 epochs."
    )
    where = f"`python {result['command']}`, {result['date']}, {result['device']}, torch {result['torch']}."
    return "\n\n".join([table(head, rows), said, where])


def whole_process(result: Mapping[str, Any]) -> str:
    times: Mapping[str, list[float]] = result["seconds"]
    rows = [[name, f"{median(values):.2f}", str(len(values))] for name, values in times.items()]
    ratios = ", ".join(f"{name}: {ratio:.1f} x" for name, ratio in result["template over dlrun"].items())
    where = f"`{result['command']}`, {result['date']}, {result['machine']}, torch {result['torch']}."
    return "\n\n".join(
        [table(["", "seconds, median", "n"], rows), f"The template's time over dlrun's: {ratios}.", where]
    )


SECTIONS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str], str]] = {
    "mnist_mlp": ("mnist_mlp.json", mnist_mlp, "mnist_mlp.py --json benchmarks/results/mnist_mlp.json"),
    "training_speed": ("training_speed.json", training_speed, "training_speed.py"),
    "timm_script": ("timm_script.json", timm_script, "timm_script.py --script pytorch-image-models/train.py"),
    "nanogpt": ("nanogpt_cpu.json", nanogpt, "nanogpt.py --nanogpt nanoGPT"),
    "image_folder": ("image_folder.json", image_folder, "image_folder.py"),
    "whole_process": (
        "whole_process.json",
        whole_process,
        "whole_process.py --json benchmarks/results/whole_process.json",
    ),
    "gpu_steps": ("step.json", gpu_steps, "step.py --json benchmarks/results/step.json"),
    "step_cpu": (
        "step_cpu.json",
        step_cpu,
        'step.py --jobs MLP LSTM CNN ViT "GPT 4" --json benchmarks/results/step_cpu.json',
    ),
    "notebook": ("notebook.json", notebook, "notebook.py --json benchmarks/results/notebook.json"),
    "scaling": ("scaling.json", scaling, "scaling.py"),
}


def section(name: str) -> str:
    file, make, command = SECTIONS[name]
    path = RESULTS / file
    if not path.exists():
        return f"Not measured yet: `python benchmarks/{command}`."
    return make(json.loads(path.read_text()))


def main() -> None:
    text = PAGE.read_text()
    PAGE.write_text(MARK.sub(lambda found: f"{found[1]}\n{section(found[2])}\n\n{found[3]}", text))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
