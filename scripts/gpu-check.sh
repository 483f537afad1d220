#!/usr/bin/env bash
# Checks and measures vecdrift on a real GPU, on a machine without Rust:
#
#   ./scripts/gpu-build.sh DIR      where Rust is
#   DIR/gpu-check.sh DIR            where the GPU is
#
# Writes raw.log and DATE-DEVICE.md to $OUT (./gpu-check-out). A part that fails or exceeds its time does not
# keep the others from running; the exit code then is 1.
#
#   VECDRIFT_GPU_CHECK_SCALE=full|tiny   sizes for a data-centre GPU, or for software Vulkan in a minute
#   VECDRIFT_GPU_CHECK_PARTS='a b …'     only these of: devices tests stress product nearest pair_sums
#                                        pair_histogram transfer peers
set -euo pipefail
[[ $# -eq 1 && -e $1/gpu-bench.gz ]] || {
    echo "usage: $0 BINARY_DIR   (made by scripts/gpu-build.sh)" >&2
    exit 2
}
folder=$(cd "$1" && pwd)
scale=${VECDRIFT_GPU_CHECK_SCALE:-full}
[[ $scale == @(full|tiny) ]] || {
    echo "VECDRIFT_GPU_CHECK_SCALE=$scale: full or tiny was expected" >&2
    exit 2
}
parts=" ${VECDRIFT_GPU_CHECK_PARTS:-devices tests stress product nearest pair_sums pair_histogram transfer peers} "
out=${OUT:-gpu-check-out}
mkdir -p "$out"
out=$(cd "$out" && pwd)
log=$out/raw.log
results=$out/parts.tsv
: >"$log" >"$results"

export VECDRIFT_REQUIRE_GPU=1
export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
if [[ -e $folder/lib/libvulkan.so.1 && $(ldconfig -p 2>/dev/null) != *libvulkan.so.1* ]]; then
    export LD_LIBRARY_PATH=$folder/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
fi
# Some containers mount NVIDIA's driver where no loader looks.
nvidia=/usr/local/nvidia/share
if [[ -z ${VK_DRIVER_FILES:-} && -e $nvidia/vulkan/icd.d/nvidia_icd.json ]] &&
    ! compgen -G '/usr/share/vulkan/icd.d/nvidia*' >/dev/null &&
    ! compgen -G '/etc/vulkan/icd.d/nvidia*' >/dev/null; then
    export VK_DRIVER_FILES=$nvidia/vulkan/icd.d/nvidia_icd.json
    export __EGL_VENDOR_LIBRARY_FILENAMES=$nvidia/glvnd/egl_vendor.d/10_nvidia.json
fi

# Unpacked into a folder of our own; tests find fixtures and program where they were built.
binaries=$(mktemp -d)
built_in=$(<"$folder/built-in")
linked=
clean_up() {
    [[ -z $linked ]] || rm -f "$linked"
    rm -rf "$binaries"
}
trap clean_up EXIT
for packed in "$folder"/*.gz; do
    name=${packed##*/}
    gzip -dc "$packed" >"$binaries/${name%.gz}"
    chmod 755 "$binaries/${name%.gz}"
done
program=$binaries/$(<"$folder/built-program")
mkdir -p "$(dirname "$program")"
ln -s "$binaries/vecdrift" "$program"
ln -s "$folder/fixtures" "$binaries/fixtures"
if [[ ! -e $built_in ]] && mkdir -p "$(dirname "$built_in")" 2>/dev/null &&
    ln -s "$binaries" "$built_in" 2>/dev/null; then
    linked=$built_in
fi

wanted() {
    [[ $parts == *" $1 "* ]]
}

# part NAME SECONDS COMMAND...: within its time, every line to the log, its exit code to the results.
part() {
    local name=$1 limit=$2 start=$SECONDS status
    shift 2
    printf '\n==> %s\n' "$name" | tee -a "$log"
    set +e
    timeout -k 10 "$limit" "$@" 2>&1 | tee -a "$log"
    status=${PIPESTATUS[0]}
    set -e
    [[ $status -eq 0 ]] || printf '==> %s: exit code %s\n' "$name" "$status" | tee -a "$log"
    printf '%s\t%s\t%s\n' "$name" "$status" $((SECONDS - start)) >>"$results"
}

bench() {
    part "$1" "$2" "$binaries/gpu-bench" "${@:3}" "--$scale"
}

# Cores that gave right products, from the lines of `gpu-bench cores`.
right_cores() {
    sed -n '/"passed":true.*"what":"core"/s/.*"core":"\([^"]*\)".*/\1/p' "$log"
}

{
    date -u +'%Y-%m-%d %H:%M UTC'
    uname -srm
    grep -m1 'model name' /proc/cpuinfo || true
    nvidia-smi --query-gpu=name,driver_version,memory.total,power.limit,clocks.max.sm --format=csv,noheader ||
        true
} 2>/dev/null | tee -a "$log"

# The cores are always needed: which ones are right decides what else runs.
bench cores 180 cores
if wanted devices; then
    part 'devices' 180 "$binaries/vecdrift" devices --check
    part 'devices, JSON' 180 "$binaries/vecdrift" devices --check --format json
fi
if wanted tests; then
    part 'unit tests' 300 "$binaries/unit-tests" gpu
    part 'twin tests' 900 "$binaries/tests" gpu twins life stream
fi
if wanted stress; then
    bench 'stress' 300 stress
    for core in $(right_cores); do
        VECDRIFT_GPU_CORE=$core bench "stress, $core" 300 stress
    done
fi
wanted product && bench product 300 product
if wanted nearest; then
    bench nearest 300 nearest
    bench 'nearest, clustered rows' 300 nearest --clustered
    bench 'nearest, large base' 400 nearest --large
fi
wanted pair_sums && bench pair_sums 300 pair_sums
wanted pair_histogram && bench pair_histogram 300 pair_histogram
wanted transfer && bench transfer 120 transfer
if wanted peers; then
    for peer in torch_product torch_nearest torch_sums faiss cuvs keops; do
        part "$peer" 600 python3 "$folder/gpu_peers.py" "$peer" "$scale"
    done
fi

device=$(sed -n 's/^{.*"device":"\([^"]*\)".*/\1/p' "$log" | head -n 1)
slug=$(tr '[:upper:]' '[:lower:]' <<<"${device:-unknown}" | sed 's/([^)]*)//g; s/[^a-z0-9]\+/-/g; s/^-*//; s/-*$//')
summary=$out/$(date -u +%Y-%m-%d)-$slug.md
title="Commit $(<"$folder/commit"), $(date -u +%Y-%m-%d), sizes \`$scale\`; \`scripts/gpu-check.sh\`."
python3 "$folder/gpu_summary.py" "$log" "$results" "$title" >"$summary"
echo
echo "==> $summary"
failed=$(awk -F '\t' '$2 != 0 {print "  " $1 ": exit code " $2}' "$results")
if [[ -n $failed ]]; then
    printf '==> FAILED\n%s\n' "$failed"
    exit 1
fi
echo '==> all parts passed'
