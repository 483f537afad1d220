#!/usr/bin/env python3
"""What other programs need for the same work on the same GPU: gpu_peers.py PEER full|tiny

PEER is torch_product, torch_nearest, torch_sums, faiss, cuvs or keops. One line of JSON per measurement, in
the form of benches/gpu.rs; a peer that is not installed is said to be not at hand. Without CUDA only `tiny`
runs, on the CPU, to test this script. Work that exceeds its time budget is stopped, and its time scaled to
all of it: `measured` is the part that was done.
"""

import importlib
import json
import sys
import time

PEER, SCALE = sys.argv[1], sys.argv[2]
FULL = SCALE == "full"
# Seconds per measurement.
BUDGET = 60 if FULL else 5

DIMENSIONS = [128, 384, 768, 1024, 3072] if FULL else [128, 384, 768]
SQUARE = [8192] * 3 if FULL else [256] * 3
PRODUCT_ROWS = [16384, 65536] if FULL else [256, 512]
NEAREST = [[1_000_000, 1_000_000, 768], [10_000, 10_000_000, 768]] if FULL else [[1024, 1024, 64]]
SUMS = [1_000_000, 1_000_000, 768] if FULL else [512, 512, 64]
NEIGHBORS = [10, 100]


class NotAtHand(Exception):
    pass


def at_hand(name):
    """The module, or NotAtHand with the reason."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a broken installation fails in many ways
        raise NotAtHand(f"{name}: {error}") from None


def torch_on_device():
    torch = at_hand("torch")
    if torch.cuda.is_available():
        return torch, "cuda"
    if FULL:
        raise NotAtHand("torch: it sees no GPU")
    return torch, "cpu"


def say(what, peer, shape, seconds, measured=1.0, products=None, **more):
    """`products`: how many of the shape's n·m products the work needs, where not all."""
    seconds = sorted(s / measured for s in seconds)
    median = seconds[len(seconds) // 2]
    n, m, dim = shape
    operations = 2.0 * (products or n * m) * dim
    line = {"what": what, "peer": peer, "shape": shape, "runs": len(seconds), "measured": measured}
    line["seconds"] = {"min": seconds[0], "median": median, "max": seconds[-1]}
    line["tflops"] = operations / median / 1e12
    print(json.dumps({**line, **more}), flush=True)


def settle(torch, device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(torch, device, run, runs):
    run()
    settle(torch, device)
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        settle(torch, device)
        seconds.append(time.perf_counter() - start)
    return seconds


def in_steps(rows, step, run, wait=lambda: None):
    """Runs row ranges until all are done or the budget is spent: (seconds, part of the rows done)."""
    # What compiles and allocates at first use does not count.
    run(0, min(step, rows))
    wait()
    start = time.perf_counter()
    done = 0
    while done < rows:
        end = min(done + step, rows)
        run(done, end)
        wait()
        done = end
        if time.perf_counter() - start > BUDGET:
            break
    return time.perf_counter() - start, done / rows


def unit_rows(torch, device, rows, dim, dtype=None):
    torch.manual_seed(rows)
    values = torch.empty(rows, dim, device=device, dtype=dtype or torch.float32)
    # In parts: the random numbers of ten million rows would not fit beside the rows.
    for start in range(0, rows, 1_000_000):
        part = torch.randn(min(1_000_000, rows - start), dim, device=device)
        part /= part.norm(dim=1, keepdim=True)
        values[start : start + part.shape[0]] = part
    return values


def torch_product():
    torch, device = torch_on_device()
    torch.backends.cuda.matmul.allow_tf32 = False
    for n, m, dim in [SQUARE] + [PRODUCT_ROWS + [dim] for dim in DIMENSIONS]:
        for name, dtype in [("bf16", torch.bfloat16), ("f32", torch.float32)]:
            x = unit_rows(torch, device, n, dim, dtype)
            y = unit_rows(torch, device, m, dim, dtype)
            out = torch.empty(n, m, device=device, dtype=dtype)
            seconds = timed(torch, device, lambda: torch.matmul(x, y.T, out=out), 20 if FULL else 2)
            say("product", f"torch {torch.__version__} {name}", [n, m, dim], seconds)


def torch_nearest():
    torch, device = torch_on_device()
    torch.backends.cuda.matmul.allow_tf32 = False
    queries_step, base_step = (4096, 262_144) if FULL else (256, 512)
    for n, m, dim in NEAREST:
        for name, dtype in [("bf16", torch.bfloat16), ("f32", torch.float32)]:
            x = unit_rows(torch, device, n, dim, dtype)
            y = unit_rows(torch, device, m, dim, dtype)
            for k in NEIGHBORS:

                def search(start, end):
                    best = None
                    for first in range(0, m, base_step):
                        scores = x[start:end] @ y[first : first + base_step].T
                        values, rows = scores.topk(min(k, scores.shape[1]), dim=1)
                        rows += first
                        if best is not None:
                            values = torch.cat([best[0], values], dim=1)
                            rows = torch.cat([best[1], rows], dim=1)
                            values, at = values.topk(k, dim=1)
                            rows = rows.gather(1, at)
                        best = values, rows

                seconds, measured = in_steps(n, queries_step, search, lambda: settle(torch, device))
                peer = f"torch {torch.__version__} {name} + topk"
                say("nearest", peer, [n, m, dim], [seconds], measured, k=k)
            del x, y


def torch_sums():
    """Five Gaussian kernels over all pairs of the pooled rows."""
    torch, device = torch_on_device()
    torch.backends.cuda.matmul.allow_tf32 = False
    n, m, dim = SUMS
    pooled = unit_rows(torch, device, n + m, dim)
    squares = (pooled * pooled).sum(1)
    rows_step, columns_step = (8192, 131_072) if FULL else (256, 512)
    sums = torch.zeros(5, device=device, dtype=torch.float64)

    def add(start, end):
        for first in range(0, n + m, columns_step):
            part = slice(first, first + columns_step)
            distances = pooled[start:end] @ pooled[part].T
            distances.mul_(-2).add_(squares[start:end, None]).add_(squares[None, part]).clamp_(min=0)
            for j in range(5):
                sums[j] += (distances * (-0.0625 * 2**j)).exp().sum(dtype=torch.float64)

    seconds, measured = in_steps(n + m, rows_step, add, lambda: settle(torch, device))
    pairs = (n + m) * (n + m - 1) // 2
    say("pair_sums", f"torch {torch.__version__} f32, all ordered pairs", SUMS, [seconds], measured, pairs)


def faiss():
    faiss = at_hand("faiss")
    numpy = at_hand("numpy")
    on_gpu = hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0
    if FULL and not on_gpu:
        raise NotAtHand("faiss: it sees no GPU")
    for n, m, dim in NEAREST:
        random = numpy.random.default_rng(1)
        x, y = (random.standard_normal((rows, dim), dtype=numpy.float32) for rows in (n, m))
        faiss.normalize_L2(x)
        faiss.normalize_L2(y)
        if on_gpu:
            resources = faiss.StandardGpuResources()
            index = faiss.GpuIndexFlatIP(resources, dim)
        else:
            index = faiss.IndexFlatIP(dim)
        index.add(y)
        for k in NEIGHBORS:
            seconds, measured = in_steps(n, 16_384, lambda start, end: index.search(x[start:end], k))
            say("nearest", f"faiss {faiss.__version__} flat f32", [n, m, dim], [seconds], measured, k=k)
        del index, x, y


def cuvs():
    brute_force = at_hand("cuvs.neighbors.brute_force")
    version = at_hand("cuvs").__version__
    torch, device = torch_on_device()
    if device == "cpu":
        raise NotAtHand("cuvs: it needs a GPU")
    for n, m, dim in NEAREST:
        x, y = unit_rows(torch, device, n, dim), unit_rows(torch, device, m, dim)
        index = brute_force.build(y, metric="inner_product")
        for k in NEIGHBORS:
            search = lambda start, end: brute_force.search(index, x[start:end], k)
            seconds, measured = in_steps(n, 16_384, search, lambda: settle(torch, device))
            say("nearest", f"cuvs {version} brute force f32", [n, m, dim], [seconds], measured, k=k)
        del index, x, y


def keops():
    """One Gaussian kernel between the sets, where vecdrift sums five and a distance within them too."""
    pykeops = at_hand("pykeops")
    lazy = at_hand("pykeops.torch").LazyTensor
    torch, device = torch_on_device()
    n, m, dim = SUMS
    x, y = unit_rows(torch, device, n, dim), unit_rows(torch, device, m, dim)

    def add(start, end):
        distances = ((lazy(x[start:end, None, :]) - lazy(y[None, :, :])) ** 2).sum(-1)
        (-distances).exp().sum(dim=1)

    seconds, measured = in_steps(n, 4096, add, lambda: settle(torch, device))
    say("pair_sums", f"keops {pykeops.__version__} f32, one kernel, n·m pairs", SUMS, [seconds], measured)


PEERS = {
    peer.__name__: peer for peer in [torch_product, torch_nearest, torch_sums, faiss, cuvs, keops]
}

if __name__ == "__main__":
    try:
        PEERS[PEER]()
    except NotAtHand as reason:
        print(json.dumps({"what": "absent", "peer": PEER, "reason": str(reason)}))
