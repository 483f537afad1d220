"""Random sets for every task type but retrieval and pairs (random_rankings.py): vecdrift against scikit-learn,
SciPy and pytrec_eval, on vectors with ties and duplicates.

    target/oracles/bin/python tests/oracles/random_tasks.py target/debug/vecdrift [ROUNDS]

Every comparison has its negative control: with the rows of the vectors mixed up it must fail.
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytrec_eval
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    adjusted_mutual_info_score,
    f1_score,
    jaccard_score,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
    v_measure_score,
)
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.neighbors import KNeighborsClassifier

warnings.filterwarnings("ignore")


class Case:
    """A folder with a suite of one task; `x` are the vectors, of which vecdrift sees `shown`."""

    def __init__(self, binary, folder, rng, mixed):
        self.binary, self.folder, self.rng, self.mixed = binary, Path(folder), rng, mixed

    def vectors(self, n, d=6):
        x = self.rng.normal(size=(n, d)).astype(np.float32)
        twins = self.rng.choice(n, n // 6)
        x[twins] = x[self.rng.choice(n, n // 6)]
        shown = x[self.rng.permutation(n)] if self.mixed else x
        np.save(self.folder / "v.npy", shown)
        return x

    def table(self, name, header, rows):
        lines = ["\t".join(map(str, row)) for row in [header, *rows]]
        (self.folder / name).write_text("\n".join(lines) + "\n")

    def evaluate(self, toml):
        (self.folder / "s.toml").write_text('name = "s"\n[[task]]\nname = "T"\n' + toml)
        command = [self.binary, "evaluate", "s.toml", "--out", "out", "--device", "cpu", "--quiet"]
        subprocess.run(command, cwd=self.folder, check=True, stdout=subprocess.DEVNULL)
        return json.loads((self.folder / "out/T.json").read_text())["scores"]["test"][0]


def same(name, found, expected, tolerance):
    assert abs(found - expected) <= tolerance, (name, found, expected)


def sts(case):
    x = case.vectors(60)
    i, j = case.rng.choice(60, (2, 90))
    gold = case.rng.integers(0, 6, 90) / 1.0
    case.table("p.tsv", ["id1", "id2", "score"], zip(i, j, gold))
    found = case.evaluate('type = "sts"\nitems = "v.npy"\npairs = "p.tsv"\n')
    a, b = x[i].astype(np.float64), x[j].astype(np.float64)
    for name, scores in {
        "cosine": 1 - paired_cosine_distances(a, b),
        "manhattan": -np.abs(a - b).sum(1),
        "euclidean": -np.sqrt(((a - b) ** 2).sum(1)),
    }.items():
        # Sums in another order split ties of twins: a rank or two of 90.
        same(name, found[f"{name}_spearman"], spearmanr(gold, scores)[0], 2e-4)
        same(name, found[f"{name}_pearson"], pearsonr(gold, scores)[0], 1e-6)


def reranking(case):
    n, queries = 50, 8
    x = case.vectors(n + queries)
    np.save(case.folder / "c.npy", np.load(case.folder / "v.npy")[:n])
    np.save(case.folder / "q.npy", np.load(case.folder / "v.npy")[n:])
    qrels, candidates, run = {}, [], {}
    for q in range(queries):
        chosen = case.rng.choice(n, 20, replace=False)
        candidates += [(q, d) for d in chosen]
        qrels[str(q)] = {str(d): int(case.rng.integers(0, 3)) for d in chosen[:6]}
        qrels[str(q)][str(chosen[0])] = 1
        y, z = x[n + q].astype(np.float64), x[chosen].astype(np.float64)
        cosines = z @ y / np.linalg.norm(z, axis=1) / np.linalg.norm(y)
        run[str(q)] = {str(d): float(np.float32(c)) for d, c in zip(chosen, cosines)}
    judged = [(q, d, r) for q, ds in qrels.items() for d, r in ds.items()]
    case.table("r.tsv", ["query-id", "corpus-id", "score"], judged)
    case.table("t.tsv", ["query-id", "corpus-id"], candidates)
    found = case.evaluate(
        'type = "reranking"\ncorpus = "c.npy"\nqueries = "q.npy"\nqrels = "r.tsv"\ntop_ranked = "t.tsv"\n'
    )
    measures = {"map_cut.5,1000": "map", "ndcg_cut.10": "ndcg"}
    expected = pytrec_eval.RelevanceEvaluator(qrels, set(measures)).evaluate(run)
    for theirs, ours in {"map_cut_5": "map_at_5", "map_cut_1000": "map_at_1000", "ndcg_cut_10": "ndcg_at_10"}.items():
        mean = np.mean([q[theirs] for q in expected.values()])
        same(ours, found[ours], mean, 2e-5)


def bitext(case):
    n = 40
    x = case.vectors(2 * n)
    case.table("p.tsv", ["id1", "id2"], [(i, n + i) for i in range(n)])
    found = case.evaluate('type = "bitext"\nitems = "v.npy"\npairs = "p.tsv"\n')
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    predicted = (unit[:n] @ unit[n:].T).round(12).argmax(1)
    p, r, f, _ = precision_recall_fscore_support(range(n), predicted, average="weighted", zero_division=0)
    for name, value in {"precision": p, "recall": r, "f1": f, "accuracy": np.mean(predicted == np.arange(n))}.items():
        same(name, found[name], value, 1e-9)


def summarization(case):
    texts, human, machine = 6, 3, 7
    n = texts * (human + machine)
    x = case.vectors(n).astype(np.float64)
    rows, spearman, pearson = [], [], []
    for t in range(texts):
        ids = np.arange(t * 10, t * 10 + 10)
        gold = case.rng.integers(1, 5, machine) / 1.0
        gold[0] = 5.0
        rows += [(f"t{t}", i, "human", "") for i in ids[:human]]
        rows += [(f"t{t}", i, "machine", g) for i, g in zip(ids[human:], gold)]
        cosines = [
            max(1 - paired_cosine_distances(x[[m]], x[[h]])[0] for h in ids[:human]) for m in ids[human:]
        ]
        spearman.append(spearmanr(gold, np.round(cosines, 12))[0])
        pearson.append(pearsonr(gold, cosines)[0])
    case.table("s.tsv", ["text-id", "id", "kind", "relevance"], rows)
    found = case.evaluate('type = "summarization"\nitems = "v.npy"\npairs = "s.tsv"\n')
    same("cosine_spearman", found["cosine_spearman"], np.mean(spearman), 1e-6)
    same("cosine_pearson", found["cosine_pearson"], np.mean(pearson), 1e-6)


def classification(case):
    n, classes = 200, 4
    labels = case.rng.integers(0, classes, n)
    x = case.vectors(n)
    x += 1.5 * np.eye(6, dtype=np.float32)[labels]
    shown = x[case.rng.permutation(n)] if case.mixed else x
    np.save(case.folder / "v.npy", shown)
    split = np.where(np.arange(n) < 120, "train", "test")
    case.table("l.tsv", ["id", "label", "split"], zip(range(n), labels, split))
    found = case.evaluate(
        'type = "classification"\nitems = "v.npy"\nlabels = "l.tsv"\n'
        'split = { column = "split", train = "train", test = "test" }\n'
    )
    train, test = np.arange(120), np.arange(120, n)
    order, accuracies, f1s = list(train), [], []
    for _ in range(10):
        np.random.RandomState(42).shuffle(order)
        counts, drawn = {}, []
        for i in order:
            if counts.get(labels[i], 0) < 8:
                drawn.append(i)
                counts[labels[i]] = counts.get(labels[i], 0) + 1
        model = LogisticRegression(max_iter=10_000, tol=1e-10).fit(x[drawn].astype(np.float64), labels[drawn])
        predicted = model.predict(x[test].astype(np.float64))
        accuracies.append(accuracy_score(labels[test], predicted))
        f1s.append(f1_score(labels[test], predicted, average="macro"))
    # A row on the boundary may fall to either side in one experiment.
    same("accuracy", found["accuracy"], np.mean(accuracies), 1.1 / 800)
    same("f1", found["f1"], np.mean(f1s), 3e-3)


def multilabel(case):
    n, names = 160, ["a", "b", "c", "d"]
    x = case.vectors(n)
    own = case.rng.random((n, 4)) < 0.35
    own[np.arange(n), case.rng.integers(0, 4, n)] = True
    x[:, :4] += 2 * own
    # Without twins, whose order among equal distances is nobody's.
    x += 1e-3 * case.rng.normal(size=x.shape).astype(np.float32)
    shown = x[case.rng.permutation(n)] if case.mixed else x
    np.save(case.folder / "v.npy", shown)
    split = np.where(np.arange(n) < 100, "train", "test")
    lists = ["|".join(name for name, has in zip(names, row) if has) for row in own]
    case.table("l.tsv", ["id", "label", "split"], zip(range(n), lists, split))
    found = case.evaluate(
        'type = "multilabel"\nitems = "v.npy"\nlabels = "l.tsv"\n'
        'split = { column = "split", train = "train", test = "test" }\n'
    )
    rng, test, means = np.random.default_rng(42), np.arange(100, n), []
    for _ in range(10):
        order = list(np.arange(100))
        rng.shuffle(order)
        counts, drawn = np.zeros(4, int), []
        for i in order:
            if (counts[own[i]] < 8).any():
                drawn.append(i)
                counts += own[i]
        model = KNeighborsClassifier(5).fit(x[drawn].astype(np.float64), own[drawn])
        predicted = np.asarray(model.predict(x[test].astype(np.float64)), bool)
        truth = own[test]
        means.append(
            [
                accuracy_score(truth, predicted),
                label_ranking_average_precision_score(truth, predicted.astype(float)),
                f1_score(truth, predicted, average="macro"),
                jaccard_score(truth, predicted, average="samples", zero_division=0),
            ]
        )
    for name, value in zip(["accuracy", "lrap", "f1", "hamming"], np.mean(means, 0)):
        same(name, found[name], value, 1e-9)


def clustering(case):
    n = 120
    labels, assigned = case.rng.integers(0, 5, n), case.rng.integers(0, 6, n)
    assigned[:60] = labels[:60]
    case.vectors(n)
    shown = assigned[case.rng.permutation(n)] if case.mixed else assigned
    case.table("l.tsv", ["id", "label"], zip(range(n), labels))
    case.table("a.tsv", ["id", "cluster"], zip(range(n), shown))
    found = case.evaluate('type = "clustering"\nitems = "v.npy"\nlabels = "l.tsv"\nassignment = "a.tsv"\n')
    same("v_measure", found["v_measure"], v_measure_score(labels, assigned), 1e-9)
    same("ami", found["ami"], adjusted_mutual_info_score(labels, assigned), 1e-9)


TASKS = [sts, reranking, bitext, summarization, classification, multilabel, clustering]

binary = str(Path(sys.argv[1]).resolve())
rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
for task in TASKS:
    for seed in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            task(Case(binary, folder, np.random.default_rng(seed), mixed=False))
    with tempfile.TemporaryDirectory() as folder:
        try:
            task(Case(binary, folder, np.random.default_rng(0), mixed=True))
        except AssertionError:
            pass
        else:
            sys.exit(f"{task.__name__}: mixed rows were not noticed")
    print(f"{task.__name__}: {rounds} rounds agree, mixed rows are noticed")
