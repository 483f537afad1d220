"""Golden values of trustworthiness and continuity, by scikit-learn: fixtures/golden/trustworthiness.json.

    python -m venv target/oracles
    target/oracles/bin/pip install scikit-learn==1.9.1
    target/oracles/bin/python tests/oracles/trustworthiness.py
"""
import json, numpy as np, sklearn
from sklearn.manifold import trustworthiness
rng = np.random.default_rng(20)
n = 120
x = np.round(rng.normal(size=(n, 6)), 3).astype(np.float32)
y = np.round(x[:, :4].astype(float) @ rng.normal(size=(4, 3)) + 0.4 * rng.normal(size=(n, 3)), 3).astype(np.float32)
unit = lambda a: a.astype(float) / np.linalg.norm(a.astype(float), axis=1, keepdims=True)
u, v = unit(x), unit(y)
out = {
    "origin": f"scikit-learn {sklearn.__version__}, sklearn.manifold.trustworthiness of unit vectors, whose Euclidean ranks are those of cosines; continuity is trustworthiness with the sides exchanged",
    "X": [[round(float(a), 3) for a in r] for r in x], "Y": [[round(float(a), 3) for a in r] for r in y],
    "trustworthiness": {str(k): float(trustworthiness(u, v, n_neighbors=k)) for k in (1, 5, 10, 40)},
    "continuity": {str(k): float(trustworthiness(v, u, n_neighbors=k)) for k in (1, 5, 10, 40)},
}
json.dump(out, open("fixtures/golden/trustworthiness.json", "w"), separators=(",", ":"))
print(out["trustworthiness"], out["continuity"])
