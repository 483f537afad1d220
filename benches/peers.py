"""Times vecdrift and its peers on the same questions, interleaved. Run by peers.sh.

Each measurement is a process of its own that reports its own seconds: of the computation, without
reading files or importing modules. vecdrift's are those of its step in the JSON's `timings`.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import statistics
import subprocess
import sys
import time

BINARY = "target/release/vecdrift"
THREADS = os.cpu_count()


# ---- the peers, each run as `peers.py --peer NAME ...` in a process of its own ----

def load(path):
    import numpy as np

    return np.load(path)


def knn_faiss(a):
    import faiss

    base, queries = load(a.base), load(a.queries)
    faiss.omp_set_num_threads(THREADS)
    start = time.perf_counter()
    index = faiss.IndexFlatIP(base.shape[1])
    index.add(base)
    found = index.search(queries, a.k)[1]
    return time.perf_counter() - start, found


def knn_torch(a):
    import torch

    torch.set_num_threads(THREADS)
    base, queries = torch.from_numpy(load(a.base)), torch.from_numpy(load(a.queries))
    start = time.perf_counter()
    with torch.no_grad():
        parts = [
            torch.topk(queries[i : i + 512] @ base.T, a.k, dim=1).indices
            for i in range(0, len(queries), 512)
        ]
    return time.perf_counter() - start, torch.cat(parts).numpy()


def knn_sklearn(a):
    from sklearn.neighbors import NearestNeighbors

    base, queries = load(a.base), load(a.queries)
    start = time.perf_counter()
    model = NearestNeighbors(n_neighbors=a.k, algorithm="brute", metric="cosine", n_jobs=-1)
    found = model.fit(base).kneighbors(queries, return_distance=False)
    return time.perf_counter() - start, found


def knn_numpy(a):
    import numpy as np

    base, queries = load(a.base), load(a.queries)
    start = time.perf_counter()
    parts = []
    for i in range(0, len(queries), 256):
        scores = queries[i : i + 256] @ base.T
        best = np.argpartition(-scores, a.k, axis=1)[:, : a.k]
        order = np.take_along_axis(scores, best, 1).argsort(1)[:, ::-1]
        parts.append(np.take_along_axis(best, order, 1))
    return time.perf_counter() - start, np.concatenate(parts)


def cosine_numpy(a):
    import numpy as np

    base = load(a.base)
    start = time.perf_counter()
    counts = np.zeros(4096, np.int64)
    for i in range(0, len(base), 1024):
        block = base[i : i + 1024] @ base[i:].T
        counts += np.histogram(block, 4096, (-1, 1))[0]
    return time.perf_counter() - start, None


def cosine_torch(a):
    import torch

    torch.set_num_threads(THREADS)
    base = torch.from_numpy(load(a.base))
    start = time.perf_counter()
    counts = torch.zeros(4096)
    with torch.no_grad():
        for i in range(0, len(base), 1024):
            block = (base[i : i + 1024] @ base[i:].T).flatten()
            counts += torch.histc(block, 4096, -1, 1)
    return time.perf_counter() - start, None


def mmd_numpy(a):
    """One bandwidth, 100 permutations by a matrix of signs, in blocks of rows."""
    import numpy as np

    x, y = load(a.base), load(a.queries)
    start = time.perf_counter()
    z = np.concatenate([x, y]).astype(np.float32)
    n, m = len(x), len(y)
    squares = (z * z).sum(1)
    sample = np.random.default_rng(0).integers(0, len(z), (2, 2000))
    median = np.median(((z[sample[0]] - z[sample[1]]) ** 2).sum(1))
    rng = np.random.default_rng(1)
    labels = np.zeros((len(z), 101), np.float32)
    labels[:n, 0] = 1
    for p in range(1, 101):
        labels[rng.permutation(len(z))[:n], p] = 1
    within, total_x = np.zeros(101), np.zeros(101)
    for i in range(0, len(z), 2048):
        rows = slice(i, i + 2048)
        kernel = np.exp(-(squares[rows, None] + squares - 2 * z[rows] @ z.T) / median)
        both = kernel @ labels
        within += (both * labels[rows]).sum(0)
        total_x += (kernel.sum(1)[:, None] * labels[rows]).sum(0)
    return time.perf_counter() - start, None


def alibi(path_x, path_y):
    """alibi-detect as its documentation has it: 100 permutations, bandwidth inferred."""
    import torch
    from alibi_detect.cd import MMDDrift

    torch.set_num_threads(THREADS)
    x, y = load(path_x), load(path_y)
    start = time.perf_counter()
    MMDDrift(x, backend="pytorch", n_permutations=100, device="cpu").predict(y)
    return time.perf_counter() - start, None


def mmd_alibi(a):
    return alibi(a.base, a.queries)


def audit_evidently(a):
    """Its default method for embeddings, a classifier that tells the sets apart."""
    import pandas as pd
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import model

    x, y = pd.DataFrame(load(a.base)), pd.DataFrame(load(a.queries))
    start = time.perf_counter()
    model()(y, x)
    return time.perf_counter() - start, None


# Peers that need packages of other versions than the rest: in which virtual environment they are.
ELSEWHERE = {"mmd_alibi": "venv-alibi", "audit_evidently": "venv-evidently"}

PEERS = {name: f for name, f in globals().items() if name.split("_")[0] in ("knn", "cosine", "mmd", "audit")}


# ---- the driver ----

def run_peer(name, case):
    python = sys.executable
    if name in ELSEWHERE:
        python = str(pathlib.Path(sys.executable).parents[2] / ELSEWHERE[name] / "bin/python")
        if not pathlib.Path(python).exists():
            return None
    command = [python, __file__, "--peer", name, "--base", case["base"]]
    command += ["--queries", case.get("queries", ""), "--k", str(case.get("k", 0))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout)


def run_vecdrift(case):
    command = [BINARY, *case["command"], "--device", "cpu", "--format", "json", "--quiet"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    output = json.loads(process.stdout.read())
    _, _, usage = os.wait4(process.pid, 0)
    steps = {t["step"]: t["seconds"] for t in output["timings"] if t["step"] != "read"}
    results = output["results"]
    if "certified" in results and results["certified"] != results["queries"]:
        raise SystemExit("not every query is certified")
    return {
        "seconds": sum(steps.values()),
        "process_seconds": time.perf_counter() - start,
        "peak_mib": usage.ru_maxrss / 1024,
        "device": output["device"],
    }


def apart(f, *args):
    """Calls f in a process of its own: what this one held would count as a child's peak memory."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(f, *args).result()


def check(case):
    """Lists of some queries against f64 products: the same rows, but for ties."""
    import numpy as np
    import pyarrow.parquet as pq

    out = case["base"] + ".neighbours.parquet"
    command = [BINARY, *case["command"], "--device", "cpu", "--quiet", "--out", out]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    table = pq.read_table(out)
    os.remove(out)
    base, queries, k = load(case["base"]), load(case["queries"]), case["k"]
    some = np.random.default_rng(0).choice(len(queries), min(len(queries), 100), replace=False)
    asked = queries[some].astype(np.float64)
    asked /= np.linalg.norm(asked, axis=1, keepdims=True)
    scores = np.concatenate([
        asked @ (part / np.linalg.norm(part, axis=1, keepdims=True)).T
        for part in (base[i : i + 50_000].astype(np.float64) for i in range(0, len(base), 50_000))
    ], axis=1)
    found = 0
    for row, query in zip(scores, some):
        ids = np.array(table["neighbor_ids"][int(query)].as_py())
        worst = np.partition(row, -k)[-k]
        found += np.count_nonzero(row[ids] >= worst - 1e-12)
    return found / (k * len(some))


def clustered(rows, dim, seed):
    """Unit rows around 200 centres."""
    import numpy as np

    centres = np.random.default_rng(1).standard_normal((200, dim), np.float32)
    rng = np.random.default_rng(seed)
    x = centres[rng.integers(0, 200, rows)] + rng.standard_normal((rows, dim), np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def made(folder, rows, dim, seed):
    import numpy as np

    path = folder / f"clustered-{rows}-{dim}-{seed}.npy"
    if not path.exists():
        np.save(path, clustered(rows, dim, seed))
    return str(path)


def moved(folder, rows, dim, seed):
    """The same rows, each moved by a tenth of its length."""
    import numpy as np

    path = folder / f"moved-{rows}-{dim}-{seed}.npy"
    if not path.exists():
        x = np.load(made(folder, rows, dim, seed))
        rng = np.random.default_rng(seed + 1)
        x += rng.standard_normal(x.shape, np.float32) * np.float32(0.1 / np.sqrt(dim))
        np.save(path, x)
    return str(path)


def real(folder, source):
    """Unit rows of a Parquet file's list column: a base, and every 40th row as a query."""
    import numpy as np
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    column = next(c for c in table.columns if "list" in str(c.type)).combine_chunks()
    x = np.asarray(column.flatten(), np.float32).reshape(len(table), -1)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    paths = str(folder / "real-base.npy"), str(folder / "real-queries.npy")
    np.save(paths[0], x)
    np.save(paths[1], x[::4])
    return paths


def cases(a, folder):
    quick = a.size == "quick"
    dims = [384] if quick else [384, 768]
    sizes = [100_000] if quick else [200_000, 1_000_000]
    queries = 2000 if quick else 10_000
    for dim in dims:
        for rows in sizes:
            base, asked = apart(made, folder, rows, dim, 2), apart(made, folder, queries, dim, 3)
            for k in (10, 100):
                yield {
                    "name": f"knn, {rows:,} × {dim}, {queries:,} queries, k = {k}",
                    "peers": ["knn_faiss"] + ([] if rows > 200_000 else ["knn_torch"])
                    + (["knn_sklearn", "knn_numpy"] if quick else []),
                    "base": base, "queries": asked, "k": k,
                    "command": ["knn", base, asked, "-k", str(k)],
                }
    if a.parquet:
        base, asked = apart(real, folder, a.parquet)
        for k in (10, 100):
            yield {
                "name": f"knn, real embeddings, k = {k}",
                "peers": ["knn_faiss", "knn_torch"],
                "base": base, "queries": asked, "k": k,
                "command": ["knn", base, asked, "-k", str(k)],
            }
    rows = 20_000 if quick else 100_000
    base = apart(made, folder, rows, 384, 2)
    yield {
        "name": f"all cosines of {rows:,} × 384",
        "peers": ["cosine_numpy", "cosine_torch"],
        "base": base,
        "command": ["cosine", base],
    }
    for rows, dim in [(5000, 384)] if quick else [(5000, 384), (5000, 768), (20_000, 768)]:
        x, y = apart(made, folder, rows, dim, 4), apart(made, folder, rows, dim, 5)
        yield {
            "name": f"MMD, {rows:,} + {rows:,} × {dim} (peers: one bandwidth, 100 permutations)",
            "peers": ["mmd_numpy"] + (["mmd_alibi"] if rows == 5000 and not quick else []),
            "base": x, "queries": y,
            "command": ["mmd", x, y],
        }
    rows = 20_000 if quick else 100_000
    x, y = apart(made, folder, rows, 384, 6), apart(moved, folder, rows, 384, 6)
    yield {
        "name": f"audit, {rows:,} + {rows:,} × 384, paired, all items and pairs (peer: one classifier)",
        "peers": ["audit_evidently"],
        "base": x, "queries": y,
        "command": ["audit", x, y],
    }


def spread(values):
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", default="quick")
    parser.add_argument("--folder", default="target/peers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--peer")
    parser.add_argument("--base")
    parser.add_argument("--queries")
    parser.add_argument("--k", type=int)
    parser.add_argument("parquet", nargs="?")
    a = parser.parse_args()
    if a.peer:
        seconds, found = PEERS[a.peer](a)
        print(json.dumps({"seconds": seconds}))
        return
    folder = pathlib.Path(a.folder)
    folder.mkdir(parents=True, exist_ok=True)
    rounds = []
    print("| question | peer | peer, s | vecdrift, s | ratio: median [min, max] | vecdrift, whole process, s | peak, MiB |")
    print("|---|---|---|---|---|---|---|")
    for case in cases(a, folder):
        # With a blank behind it, so that "k = 10 " is not "k = 100".
        if a.only not in case["name"] + " ":
            continue
        if "k" in case:
            recall = apart(check, case)
            if recall != 1:
                raise SystemExit(f"{case['name']}: recall {recall} against f64")
        rounds = []
        for _ in range(a.rounds):
            row = {"vecdrift": run_vecdrift(case)}
            # A peer that takes minutes is run in the first rounds only.
            slow = {p for p in case["peers"] if sum(r[p]["seconds"] for r in rounds if r[p]) > 120}
            row.update({p: None if p in slow else run_peer(p, case) for p in case["peers"]})
            rounds.append(row)
        own = [r["vecdrift"]["seconds"] for r in rounds]
        for peer in case["peers"]:
            theirs = [r[peer]["seconds"] for r in rounds if r[peer]]
            if not theirs:
                print(f"| {case['name']} | {peer} | failed | {spread(own)} | | | |")
                continue
            ratios = [r[peer]["seconds"] / r["vecdrift"]["seconds"] for r in rounds if r[peer]]
            process = statistics.median(r["vecdrift"]["process_seconds"] for r in rounds)
            peak = max(r["vecdrift"]["peak_mib"] for r in rounds)
            print(
                f"| {case['name']} | {peer.split('_')[1]} | {spread(theirs)} | {spread(own)} "
                f"| **{spread(ratios)}** | {process:.2f} | {peak:.0f} |",
                flush=True,
            )
    if not rounds:
        raise SystemExit(f"no case's name contains {a.only!r}")
    print()
    device = rounds[-1]["vecdrift"]["device"]
    print(f"{device['name']}, {device['precision']}; {a.rounds} interleaved rounds.")


if __name__ == "__main__":
    main()
