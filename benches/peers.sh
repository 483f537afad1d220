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
cargo build --release --locked
exec "$venv/bin/python" benches/peers.py --size "$size" --folder target/peers "$@"
