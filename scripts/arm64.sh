#!/usr/bin/env bash
# The CPU kernels and the oracle tests on 64-bit ARM, under qemu: ./scripts/arm64.sh
#
# Cross-compiles the tests and runs them with qemu-user, once as a CPU with dot products of bytes and once
# as one without. Minutes, most of them the first build. Needs rustup or a toolchain that has the target, on a Debian or Ubuntu where packages can
# be installed or are: it fails, and says in a box what is missing, rather than test nothing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

target=aarch64-unknown-linux-gnu
not_run() {
    boxed "64-BIT ARM: NOT TESTED. $1"
    exit 1
}

[[ $(uname) == Linux ]] || not_run "This is $(uname); the tests run on Linux."
if ! command -v qemu-aarch64-static >/dev/null || ! command -v aarch64-linux-gnu-gcc >/dev/null; then
    apt_install qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
fi
command -v qemu-aarch64-static >/dev/null || not_run 'There is no qemu-aarch64-static (qemu-user-static).'
command -v aarch64-linux-gnu-gcc >/dev/null ||
    not_run 'There is no aarch64-linux-gnu-gcc (gcc-aarch64-linux-gnu, libc6-dev-arm64-cross).'
if [[ ! -d $(rustc --print sysroot)/lib/rustlib/$target ]]; then
    rustup target add $target || not_run "Rust has no $target: rustup target add $target"
fi

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export QEMU_LD_PREFIX=/usr/aarch64-linux-gnu
tests=$(test_binaries --target $target)
unit=$(head -n 1 <<<"$tests") integration=$(tail -n 1 <<<"$tests")
[[ ${integration##*/} == all-* ]] || {
    unit=$integration
    integration=$(head -n 1 <<<"$tests")
}

# cortex-a72 has no dot products, max has them. The test of all kernels starts itself again, which qemu
# does only where it is registered for ARM programs, so every kernel is named here instead.
run() {
    local cpu=$1 kernel=$2
    printf '\n==> %s as %s\n' "$kernel" "$cpu"
    env VECDRIFT_CPU_KERNEL="$kernel" qemu-aarch64-static -cpu "$cpu" "$integration" \
        twins::cpu_engines_match_the_oracles_and_each_other --exact --nocapture | tee "$digests/$cpu-$kernel"
}
digests=$(mktemp -d)
trap 'rm -rf "$digests"' EXIT
for cpu in max cortex-a72; do
    printf '\n==> unit tests as %s\n' "$cpu"
    qemu-aarch64-static -cpu $cpu "$unit" engine::cpu
done
run max neondot
run max neon
run max portable
run cortex-a72 neon

# All of these fuse every multiply-add, so every bit is the same.
different=$(grep -ho 'digest of .*' "$digests"/* | awk '{ print $NF }' | sort -u | wc -l)
[[ $different -eq 1 ]] || {
    grep -H 'digest of' "$digests"/* >&2
    echo 'kernels differ' >&2
    exit 1
}
