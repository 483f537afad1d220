"""Random rankings with ties, missing documents, graded and negative judgements, and random pairs with ties:
vecdrift against pytrec_eval, ir_measures, ranx and scikit-learn, and its results through mteb's own loader.

    python -m venv target/oracles
    target/oracles/bin/pip install mteb==2.26.24 pytrec_eval-terrier ir-measures ranx scikit-learn pyarrow
    target/oracles/bin/python tests/oracles/random_rankings.py target/debug/vecdrift [ROUNDS]
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import ir_measures
import numpy as np
import pytrec_eval
import ranx
from ir_measures import AP, R, nDCG
from mteb.results import TaskResult
from sklearn.metrics import average_precision_score

KS = [1, 3, 5, 10, 20, 100, 1000]


def evaluate(binary, folder, toml):
    (folder / "s.toml").write_text('name = "s"\n[[task]]\nname = "T"\n' + toml)
    command = [binary, "evaluate", "s.toml", "--out", "out", "--device", "cpu", "--quiet"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    loaded = TaskResult.from_disk(folder / "out/T.json")
    assert loaded.task_name == "T"
    return json.loads((folder / "out/T.json").read_text())["scores"]["test"][0]


def same(name, found, expected, tolerance):
    assert abs(found - expected) <= tolerance, (name, found, expected)


def rankings(binary, folder, rng):
    qrels, run = {}, {}
    for q in range(int(rng.integers(1, 20))):
        documents = [f"{'dD'[int(rng.integers(2))]}{i}" for i in range(int(rng.integers(2, 80)))]
        judged = rng.choice(documents + ["absent1", "absent2"], min(len(documents), 8), replace=False)
        qrels[f"q{q}"] = {d: int(rng.integers(-1, 4)) for d in judged}
        # Few distinct scores, some closer than f32 can tell.
        grid = rng.integers(0, 6, len(documents)) / 7 + rng.integers(-1, 2, len(documents)) * 1e-10
        run[f"q{q}"] = dict(zip(documents, map(float, grid)))
    lines = [f"{q}\t{d}\t{r}" for q, ds in qrels.items() for d, r in ds.items()]
    (folder / "q.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    lines = [f"{q} Q0 {d} 1 {s!r} t" for q, ds in run.items() for d, s in ds.items()]
    (folder / "r.trec").write_text("\n".join(lines) + "\n")
    found = evaluate(binary, folder, 'type = "retrieval"\nqrels = "q.tsv"\nrun = "r.trec"\n')
    cut = ",".join(map(str, KS))
    stems = {"ndcg_cut": "ndcg", "map_cut": "map", "recall": "recall", "P": "precision", "success": "hit_rate"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, {f"{s}.{cut}" for s in stems}).evaluate(run)
    for stem, name in stems.items():
        for k in KS:
            mean = np.mean([q[f"{stem}_{k}"] for q in expected.values()])
            same(f"{name}_at_{k}", found[f"{name}_at_{k}"], mean, 5.001e-6)
    judged = [ir_measures.Qrel(q, d, r) for q, ds in qrels.items() for d, r in ds.items()]
    ranked = [ir_measures.ScoredDoc(q, d, s) for q, ds in run.items() for d, s in ds.items()]
    others = ir_measures.calc_aggregate([nDCG @ 10, AP @ 10, R @ 100], judged, ranked)
    same("nDCG", found["ndcg_at_10"], others[nDCG @ 10], 5.001e-6)
    same("AP", found["map_at_10"], others[AP @ 10], 5.001e-6)
    same("R", found["recall_at_100"], others[R @ 100], 5.001e-6)


def untied(binary, folder, rng):
    # ranx has an order of its own for ties: here are none, not in f32 either.
    qrels, run = {}, {}
    for q in range(int(rng.integers(2, 12))):
        documents = [f"d{i}" for i in range(int(rng.integers(12, 60)))]
        qrels[f"q{q}"] = {d: int(rng.integers(1, 4)) for d in rng.choice(documents, 5, replace=False)}
        run[f"q{q}"] = {d: float(s) / 64 for d, s in zip(documents, rng.permutation(len(documents)))}
    lines = [f"{q}\t{d}\t{r}" for q, ds in qrels.items() for d, r in ds.items()]
    (folder / "q.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")
    lines = [f"{q} Q0 {d} 1 {s!r} t" for q, ds in run.items() for d, s in ds.items()]
    (folder / "r.trec").write_text("\n".join(lines) + "\n")
    found = evaluate(binary, folder, 'type = "retrieval"\nqrels = "q.tsv"\nrun = "r.trec"\n')
    names = {"ndcg@10": "ndcg_at_10", "recall@5": "recall_at_5", "precision@5": "precision_at_5", "mrr@10": "mrr_at_10"}
    theirs = ranx.evaluate(ranx.Qrels(qrels), ranx.Run(run), list(names))
    for name, ours in names.items():
        same(name, found[ours], theirs[name], 5.001e-6)
    # The control: other judgements have other scores, unless all of them lie beyond the tenth place.
    turned = {q: dict(zip(reversed(list(ds)), ds.values())) for q, ds in qrels.items()}
    other = ranx.evaluate(ranx.Qrels(turned), ranx.Run(run), ["ndcg@10"])
    return abs(found["ndcg_at_10"] - other) > 5.001e-6


def pairs(binary, folder, rng):
    n = int(rng.integers(4, 60))
    rows = rng.integers(-2, 3, (n, 4)).astype(np.float32)
    np.save(folder / "v.npy", rows)
    sound = np.flatnonzero(rows.any(1))
    i, j = rng.choice(sound, (2, 40))
    labels = rng.integers(0, 2, 40)
    labels[0] = 1
    lines = [f"{a}\t{b}\t{l}" for a, b, l in zip(i, j, labels)]
    (folder / "p.tsv").write_text("\n".join(["id1\tid2\tlabel", *lines]) + "\n")
    found = evaluate(binary, folder, 'type = "pair_classification"\nitems = "v.npy"\npairs = "p.tsv"\n')
    x, y = rows[i].astype(np.float64), rows[j].astype(np.float64)
    for name, scores in {
        "manhattan": -np.abs(x - y).sum(1),
        "dot": (x * y).sum(1),
        # Rounded, as sums in another order split ties that are exact on this grid.
        "euclidean": -((x - y) ** 2).sum(1),
    }.items():
        same(name, found[f"{name}_ap"], average_precision_score(labels, scores), 1e-12)


binary = str(Path(sys.argv[1]).resolve())
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 20
noticed = 0
for seed in range(rounds):
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        rankings(binary, Path(folder), rng)
    with tempfile.TemporaryDirectory() as folder:
        pairs(binary, Path(folder), rng)
    with tempfile.TemporaryDirectory() as folder:
        noticed += untied(binary, Path(folder), rng)
assert 2 * noticed > rounds, "other judgements were not noticed"
print(f"{rounds} rounds of rankings and pairs agree")
