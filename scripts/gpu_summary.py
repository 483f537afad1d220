#!/usr/bin/env python3
"""The Markdown summary of a GPU check: gpu_summary.py LOG PARTS TITLE

LOG holds the raw lines of every part, PARTS a line `name<TAB>exit code<TAB>seconds` per part.
"""

import json
import re
import sys

# Name of the device: TFLOP/s of f16 matrices with f32 sums (dense), of f32, and where it says so.
PEAKS = [
    (r"H200|GH200|H100 80GB HBM3|H100 SXM", 989.4, 66.9, "NVIDIA H100/H200 data sheets, SXM"),
    (r"H100.*PCIe", 756.0, 51.2, "NVIDIA H100 data sheet, PCIe"),
    (r"A100", 312.0, 19.5, "NVIDIA A100 data sheet"),
    (r"L40S", 362.0, 91.6, "NVIDIA L40S data sheet"),
    (r"\bL4\b", 121.0, 30.3, "NVIDIA L4 data sheet"),
    (r"\bT4\b", 65.0, 8.1, "NVIDIA T4 data sheet"),
    (r"RTX 4090", 165.2, 82.6, "NVIDIA Ada architecture white paper"),
    (r"RTX 3090(?! Ti)", 71.0, 35.6, "NVIDIA GA102 architecture white paper"),
]


def table(columns, rows):
    """Without the columns that no row fills."""
    filled = [i for i in range(len(columns)) if any(row[i] for row in rows)]
    columns, rows = [columns[i] for i in filled], [[row[i] for i in filled] for row in rows]
    text = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join(text + ["| " + " | ".join(row) + " |" for row in rows])


def number(value):
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def shape_of(line):
    text = " × ".join(f"{v:,}" for v in line["shape"])
    return text + (f", k = {line['k']}" if "k" in line else "")


def share(tflops, peak):
    return "" if tflops is None or peak is None else f"{100 * tflops / peak:.1f} %"


def who(line):
    """The core or the peer, with what is special about the measurement."""
    name = line["peer"] if "peer" in line else f"**vecdrift** {line['core']}"
    name += ", clustered rows" if line.get("data") == "clustered" else ""
    return name + (f" (scaled from {100 * line['measured']:.2g} %)" if line.get("measured", 1) < 1 else "")


class Roofline:
    """What the device can do: by data sheet where it is known, and by a product of PyTorch's in this run."""

    def __init__(self, device, lines):
        known = [(f16, f32, source) for name, f16, f32, source in PEAKS if re.search(name, device)]
        self.f16, self.f32, self.source = known[0] if known else (None, None, None)
        self.torch = None
        for line in lines:
            if line["what"] == "product" and " bf16" in line.get("peer", ""):
                self.torch = max(self.torch or 0, line["tflops"])

    columns = ["of f16 peak", "of f32 peak", "of PyTorch's best bf16 product"]

    def shares(self, tflops):
        return [share(tflops, peak) for peak in (self.f16, self.f32, self.torch)]

    def describe(self):
        if self.source:
            text = f"Peaks: {self.f16} TFLOP/s f16 with f32 sums, {self.f32} f32 ({self.source})."
        else:
            text = "Peaks: none known for this device."
        if self.torch:
            text += f" PyTorch's best bf16 product in this run: {number(self.torch)} TFLOP/s."
        return text


def speeds(lines, what, roofline):
    """One table of an operation, peers beside vecdrift at the same shape."""
    found = [line for line in lines if line["what"] == what]
    own = {}
    for line in found:
        # The first is the core that vecdrift would choose on rows of the hardest kind.
        if "peer" not in line:
            own.setdefault(shape_of(line), line["seconds"]["median"])
    rows = []
    for line in sorted(found, key=lambda line: (line["shape"], line.get("k", 0), "peer" in line)):
        seconds = line["seconds"]["median"]
        base = own.get(shape_of(line)) if what != "product" else None
        ratio = f"{seconds / base:.2f}" if base and "peer" in line else ""
        row = [shape_of(line), who(line), f"{seconds:.4g}", number(line["tflops"])]
        rows.append(row + roofline.shares(line["tflops"]) + [ratio])
    if not rows:
        return None
    columns = ["shape", "by", "seconds", "TFLOP/s"] + Roofline.columns + ["times vecdrift's seconds"]
    return f"## `{what}`\n\n" + table(columns, rows)


def main():
    log_path, parts_path, title = sys.argv[1:]
    with open(log_path, encoding="utf-8", errors="replace") as file:
        log = file.read()
    with open(parts_path, encoding="utf-8") as file:
        parts = [line.rstrip("\n").split("\t") for line in file]
    lines = []
    for text in log.splitlines():
        if text.startswith("{") and text.endswith("}"):
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if "what" in line:
                lines.append(line)
    device = next((line["device"] for line in lines if "device" in line), "unknown device")
    roofline = Roofline(device, lines)

    sections = [f"# {device}\n\n{title}\n\n{roofline.describe()}"]
    outcome = {"0": "passed", "124": "**out of time**", "137": "**killed**"}
    rows = [[name, outcome.get(code, f"**failed ({code})**"), seconds] for name, code, seconds in parts]
    sections.append("## Parts\n\n" + table(["part", "result", "seconds"], rows))
    absent = [f"- {line['peer']}: not at hand ({line['reason']})" for line in lines if line["what"] == "absent"]
    if absent:
        sections.append("\n".join(absent))

    cores = [line for line in lines if line["what"] == "core"]
    if cores:
        rows = [
            [
                line["core"],
                "passed" if line["passed"] else f"**FAILED**: {line['failure']}",
                "" if line["max_error"] is None else f"{line['max_error']:.1e}",
                f"{line['bound']:.1e}",
            ]
            for line in cores
        ]
        sections.append("## Cores\n\n" + table(["core", "known answers", "largest error", "bound"], rows))
    for what in ["product", "nearest", "pair_sums", "pair_histogram"]:
        sections.append(speeds(lines, what, roofline))
    rows = [
        [line["what"], f"{line['bytes'] / 2**20:,.0f} MiB", f"{line['bytes'] / line['seconds']['median'] / 1e9:.1f}"]
        for line in lines
        if "bytes" in line
    ]
    if rows:
        sections.append("## Transfers\n\n" + table(["direction", "size", "GB/s"], rows))
    stress = [line for line in lines if line["what"] == "stress"]
    if stress:
        by_core = {}
        for line in stress:
            by_core.setdefault(line["core"], []).append(line)
        rows = [
            [core, str(len(found)), str(min(line["runs"] for line in found))]
            for core, found in by_core.items()
        ]
        columns = ["core", "operations × shapes", "runs of each, all bitwise equal"]
        sections.append("## Races\n\n" + table(columns, rows))
    sections.append("## Raw lines\n\n```text\n" + log.replace("```", "'''").rstrip() + "\n```")
    print("\n\n".join(section for section in sections if section))


if __name__ == "__main__":
    main()
