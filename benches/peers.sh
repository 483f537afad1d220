#!/usr/bin/env bash
# vecdrift on the CPU beside what people run today, interleaved: ./benches/peers.sh [quick|full] [FILE.parquet]
#
# Installs the peers into a virtual environment (target/peers), builds the release binary, generates data
# there, and prints a Markdown page of ratios. Machines are noisy and shared: each round runs every
# program once, one after the other, and only ratios within a round count. FILE.parquet adds real
# embeddings to the made-up ones.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

size=${1:-quick}
case $size in
    quick | full) ;;
    *)
        echo "benches/peers.sh: \"$size\", expected quick or full" >&2
        exit 2
        ;;
esac
shift || true

venv=target/peers/venv
if [[ ! -x $venv/bin/python ]]; then
    python3 -m venv "$venv"
fi
"$venv/bin/pip" install --quiet --disable-pip-version-check \
    numpy scipy scikit-learn faiss-cpu pyarrow threadpoolctl torch
if [[ $size == full ]]; then
    # Packages that want older versions of others. Without them their lines say "failed".
    for peer in alibi evidently; do
        [[ -x target/peers/venv-$peer/bin/python ]] || python3 -m venv "target/peers/venv-$peer"
    done
    target/peers/venv-alibi/bin/pip install --quiet --disable-pip-version-check \
        "alibi-detect[torch]==0.13.0" "numpy<2"
    target/peers/venv-evidently/bin/pip install --quiet --disable-pip-version-check \
        "evidently==0.7.23" "pandas<3"
fi
cargo build --release --locked
cargo bench --locked --quiet --bench ceilings
exec "$venv/bin/python" benches/peers.py --size "$size" --folder target/peers "$@"
