"""Labels of examples/suite, and fixtures/golden/evaluate_suite.json: what scikit-learn, SciPy and
pytrec_eval say about them in float64.

    python tests/oracles/example_suite.py

needs numpy, scipy, scikit-learn, pyarrow and pytrec_eval-terrier. Labels are made from the vectors of
fixtures/reference.parquet by rules that leave every task neither perfect nor hopeless.
"""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytrec_eval
from scipy.stats import pearsonr, spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    adjusted_mutual_info_score,
    average_precision_score,
    f1_score,
    label_ranking_average_precision_score,
    precision_recall_fscore_support,
    v_measure_score,
)
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import MultiLabelBinarizer

ROOT = Path(__file__).resolve().parents[2]
FIXTURES, SUITE = ROOT / "fixtures", ROOT / "examples/suite"


def read(name):
    table = pq.read_table(FIXTURES / name)
    rows = np.array(table["embedding"].to_pylist(), dtype=np.float64)
    columns = table.column_names
    sections = table["section"].to_pylist() if "section" in columns else None
    return table["id"].to_pylist(), rows, sections


def write(name, header, rows):
    lines = ["\t".join(header)] + ["\t".join(map(str, row)) for row in rows]
    (SUITE / name).write_text("\n".join(lines) + "\n")


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def make_labels():
    random.seed(7)
    ids, rows, sections = read("reference.parquet")
    current, current_rows, _ = read("current.parquet")
    sound = np.isfinite(current_rows).all(1) & (current_rows != 0).any(1)
    shared = {i for i, ok in zip(current, sound) if ok} & set(ids)
    keep = [k for k, i in enumerate(ids) if i in shared]
    cosines = unit(rows) @ unit(rows).T
    np.fill_diagonal(cosines, -2)
    near = [max(keep, key=lambda j: cosines[i, j]) for i in keep]
    chosen = random.sample(range(len(keep)), 120)
    pairs = []
    for at in chosen:
        i = keep[at]
        j = near[at] if random.random() < 0.5 else random.choice([k for k in keep if k != i])
        pairs.append((i, j, round(5 * max(0, cosines[i, j]) + random.gauss(0, 0.6), 1)))
    write("similar.tsv", ["id1", "id2", "score"], [(ids[i], ids[j], s) for i, j, s in pairs])
    labels = [(ids[i], ids[j], int(sections[i] == sections[j])) for i, j, _ in pairs]
    write("same_topic.tsv", ["id1", "id2", "label"], labels)
    twins = [(ids[keep[at]], ids[near[at]]) for at in chosen]
    write("twins.tsv", ["id1", "id2"], twins)
    split = ["train" if random.random() < 0.6 else "test" for _ in keep]
    topics = [(ids[k], sections[k], s) for k, s in zip(keep, split)]
    write("topics.tsv", ["id", "label", "split"], topics)
    paid = {"billing", "pricing", "returns", "shipping"}
    tags = [(i, "|".join([t] + (["paid"] if t in paid else [])), s) for i, t, s in topics]
    write("tags.tsv", ["id", "labels", "split"], tags)
    qrels = [l.split("\t") for l in (FIXTURES / "qrels.tsv").read_text().split("\n")[1:] if l]
    candidates = []
    for query in sorted({q for q, _, _ in qrels}):
        judged = [d for q, d, _ in qrels if q == query]
        others = random.sample([ids[k] for k in keep if ids[k] not in judged], 20)
        candidates += [(query, d) for d in sorted(judged + others)]
    write("candidates.tsv", ["query-id", "corpus-id"], candidates)
    groups = []
    for text in range(12):
        human = [random.choice(keep) for _ in range(3)]
        groups += [(f"text-{text}", ids[k], "human", "") for k in human]
        for _ in range(8):
            machine = near[keep.index(random.choice(human))]
            if random.random() < 0.5:
                machine = random.choice(keep)
            closest = max(cosines[machine, k] if k != machine else 1.0 for k in human)
            relevance = round(5 * closest + random.gauss(0, 0.4), 1)
            groups.append((f"text-{text}", ids[machine], "machine", relevance))
    write("summaries.tsv", ["text-id", "id", "kind", "relevance"], groups)


def table(name):
    lines = (SUITE / name).read_text().strip("\n").split("\n")
    header = lines[0].split("\t")
    return [dict(zip(header, line.split("\t"))) for line in lines[1:]]


def trec(qrels, run):
    ks = "1,3,5,10,20,100,1000"
    stems = {"ndcg_cut": "ndcg", "map_cut": "map", "recall": "recall", "P": "precision"}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"{s}.{ks}" for s in stems} | {"recip_rank"})
    found = evaluator.evaluate(run)
    out = {}
    for stem, name in stems.items():
        for k in ks.split(","):
            values = [q[f"{stem}_{k}"] for q in found.values()]
            out[f"{name}_at_{k}"] = round(float(np.mean(values)), 5)
    return out


def cosine(x, y):
    return 1 - paired_cosine_distances(x, y)


def golden(version):
    ids, rows, _ = read(f"{version}.parquet")
    sound = np.isfinite(rows).all(1) & (rows != 0).any(1)
    at = {i: k for k, i in enumerate(ids) if sound[k]}
    qids, queries, _ = read(f"queries_{version}.parquet")
    out = {}
    qrels = {}
    for line in (FIXTURES / "qrels.tsv").read_text().strip().split("\n")[1:]:
        q, d, r = line.split("\t")
        qrels.setdefault(q, {})[d] = int(r)
    docs = [i for i in ids if i in at]
    sims = unit(queries) @ unit(rows[[at[d] for d in docs]]).T
    run = {q: dict(zip(docs, map(float, sims[k]))) for k, q in enumerate(qids) if q in qrels}
    out["Support"] = trec(qrels, run)
    candidates = {}
    for row in table("candidates.tsv"):
        q, d = row["query-id"], row["corpus-id"]
        candidates.setdefault(q, {})[d] = run[q][d]
    out["SupportReranking"] = trec(qrels, candidates)

    pairs = table("similar.tsv")
    x, y = (rows[[at[p[k]] for p in pairs]] for k in ("id1", "id2"))
    gold = [float(p["score"]) for p in pairs]
    similarity = {
        "cosine": cosine(x, y),
        "manhattan": -np.abs(x - y).sum(1),
        "euclidean": -np.linalg.norm(x - y, axis=1),
        "dot": (x * y).sum(1),
    }
    out["Similar"] = {}
    for name in ("cosine", "manhattan", "euclidean"):
        out["Similar"][f"{name}_spearman"] = spearmanr(gold, similarity[name]).statistic
        out["Similar"][f"{name}_pearson"] = pearsonr(gold, similarity[name]).statistic
    same = [int(p["label"]) for p in table("same_topic.tsv")]
    aps = {f"{n}_ap": average_precision_score(same, s) for n, s in similarity.items()}
    out["SameTopic"] = aps | {"max_ap": max(aps.values())}

    twins = table("twins.tsv")
    x, y = (unit(rows[[at[p[k]] for p in twins]]) for k in ("id1", "id2"))
    predicted = (x @ y.T).argmax(1)
    n = len(twins)
    p, r, f, _ = precision_recall_fscore_support(
        range(n), predicted, average="weighted", zero_division=0
    )
    out["Twins"] = {"precision": p, "recall": r, "f1": f, "accuracy": (predicted == range(n)).mean()}

    topics = table("topics.tsv")
    train = [t for t in topics if t["split"] == "train"]
    test = [t for t in topics if t["split"] == "test"]
    labels, gold = [t["label"] for t in train], [t["label"] for t in test]
    vectors = lambda rs: rows[[at[t["id"]] for t in rs]].astype(np.float32)
    order, scores = list(range(len(train))), {}
    for _ in range(10):
        np.random.RandomState(42).shuffle(order)
        counts, picked = {}, []
        for i in order:
            if counts.get(labels[i], 0) < 8:
                counts[labels[i]] = counts.get(labels[i], 0) + 1
                picked.append(i)
        model = LogisticRegression(max_iter=10_000, tol=1e-10)
        model.fit(vectors([train[i] for i in picked]).astype(np.float64), [labels[i] for i in picked])
        guess = model.predict(vectors(test).astype(np.float64))
        for name, value in {
            "accuracy": accuracy_score(gold, guess),
            "f1": f1_score(gold, guess, average="macro"),
            "f1_weighted": f1_score(gold, guess, average="weighted"),
        }.items():
            scores.setdefault(name, []).append(value)
    out["Topics"] = {k: float(np.mean(v)) for k, v in scores.items()}

    tags = table("tags.tsv")
    train = [t for t in tags if t["split"] == "train"]
    test = [t for t in tags if t["split"] == "test"]
    rng, scores = np.random.default_rng(42), {}
    binarizer = MultiLabelBinarizer().fit([t["labels"].split("|") for t in test])
    truth = binarizer.transform([t["labels"].split("|") for t in test])
    for _ in range(10):
        order, counts, picked = list(np.arange(len(train))), {}, []
        rng.shuffle(order)
        for i in order:
            own = train[i]["labels"].split("|")
            if any(counts.get(l, 0) < 8 for l in own):
                picked.append(i)
                for l in own:
                    counts[l] = counts.get(l, 0) + 1
        chosen = [train[i] for i in picked]
        model = KNeighborsClassifier(n_neighbors=5)
        model.fit(vectors(chosen), binarizer.transform([t["labels"].split("|") for t in chosen]))
        guess = model.predict(vectors(test))
        union = np.maximum((truth | guess).sum(1), 1)
        for name, value in {
            "accuracy": accuracy_score(truth, guess),
            "f1": f1_score(truth, guess, average="macro", zero_division=0),
            "lrap": label_ranking_average_precision_score(truth, guess),
            "hamming": float(((truth & guess).sum(1) / union).mean()),
        }.items():
            scores.setdefault(name, []).append(value)
    out["Tags"] = {k: float(np.mean(v)) for k, v in scores.items()}

    spearmans, pearsons = [], []
    groups = table("summaries.tsv")
    for text in dict.fromkeys(g["text-id"] for g in groups):
        own = [g for g in groups if g["text-id"] == text]
        human = rows[[at[g["id"]] for g in own if g["kind"] == "human"]]
        machine = [g for g in own if g["kind"] == "machine"]
        best = [max(cosine(rows[[at[g["id"]]] * len(human)], human)) for g in machine]
        gold = [float(g["relevance"]) for g in machine]
        spearmans.append(spearmanr(gold, best).statistic)
        pearsons.append(pearsonr(gold, best).statistic)
    out["Summaries"] = {
        "cosine_spearman": float(np.mean(spearmans)),
        "cosine_pearson": float(np.mean(pearsons)),
    }
    sections = {t["id"]: t["label"] for t in topics}
    return {task: {k: float(v) for k, v in values.items()} for task, values in out.items()}


make_labels()
made = {version: golden(version) for version in ("reference", "current")}
# Partitions of partly equal sizes, for the measures of agreement.
rng = np.random.default_rng(5)
a, b = rng.integers(0, 6, 200), rng.integers(0, 9, 200)
b[:120] = a[:120]
made["partitions"] = {
    "labels": a.tolist(),
    "clusters": b.tolist(),
    "v_measure": v_measure_score(a, b),
    "ami": adjusted_mutual_info_score(a, b),
}
made["origin"] = "tests/oracles/example_suite.py: scikit-learn, SciPy and pytrec_eval in float64"
path = FIXTURES / "golden/evaluate_suite.json"
path.write_text(json.dumps(made, indent=1) + "\n")
