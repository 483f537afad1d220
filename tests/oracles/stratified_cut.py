"""Golden rows of MTEB's stratified cut of multilabel splits: fixtures/golden/stratified_cut.json.

    target/oracles/bin/python tests/oracles/stratified_cut.py
"""

import json

import numpy as np
from mteb.abstasks._stratification import _iterative_train_test_split

cases = []
for seed, (rows, names, share, keep) in enumerate([(60, 4, 0.4, 25), (200, 7, 0.25, 80), (90, 3, 0.15, 40)]):
    y = (np.random.default_rng(seed).random((rows, names)) < share).astype(int)
    _, kept = _iterative_train_test_split(np.arange(rows).reshape(-1, 1), y, test_size=keep / rows, random_state=42)
    labels = [np.flatnonzero(row).tolist() for row in y]
    cases.append({"labels": labels, "keep": keep, "rows": sorted(kept.tolist())})
with open("fixtures/golden/stratified_cut.json", "w") as file:
    json.dump(cases, file, separators=(",", ":"))
    file.write("\n")
