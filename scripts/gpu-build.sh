#!/usr/bin/env bash
# What scripts/gpu-check.sh needs on a machine without Rust: ./scripts/gpu-build.sh OUT_DIR
#
# The binaries link to glibc only, so any distribution at least as new as this one runs them. They are
# stripped and packed; the folder stays below 60 MiB. VECDRIFT_PROFILE names a Cargo profile other than
# release.
set -euo pipefail
[[ $# -eq 1 ]] || {
    echo "usage: $0 OUT_DIR" >&2
    exit 2
}
mkdir -p "$1"
out=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

profile=${VECDRIFT_PROFILE:-release}

# place BINARY NAME: stripped and packed, into the folder.
place() {
    strip -o "$out/$2" "$1"
    gzip -f "$out/$2"
}

program=$(cargo build --locked --bin vecdrift --profile "$profile" --message-format=json | executables bin)
place "$program" vecdrift
for binary in $(test_binaries --profile "$profile"); do
    case ${binary##*/} in
    all-*) place "$binary" tests ;;
    *) place "$binary" unit-tests ;;
    esac
done
bench=$(cargo bench --no-run --locked --bench gpu --profile "$profile" --message-format=json | executables bench)
place "$bench" gpu-bench

rm -rf "$out/fixtures"
cp -r fixtures "$out/"
cp scripts/gpu-check.sh scripts/gpu_peers.py scripts/gpu_summary.py "$out/"
# Containers with an NVIDIA driver often lack the loader.
for loader in /usr/lib*/libvulkan.so.1 /usr/lib/*/libvulkan.so.1; do
    [[ -e $loader ]] || continue
    mkdir -p "$out/lib"
    cp -L "$loader" "$out/lib/"
    break
done
# Tests look for the fixtures and the program where they were built.
printf '%s\n' "$PWD" >"$out/built-in"
printf '%s\n' "${program#"$PWD"/}" >"$out/built-program"
{ git describe --always --dirty 2>/dev/null || echo unknown; } >"$out/commit"

bytes=$(du -sb "$out" | cut -f1)
echo "$out: $((bytes >> 20)) MiB"
((bytes < 60 << 20)) || {
    echo "$out: more than 60 MiB" >&2
    exit 1
}
