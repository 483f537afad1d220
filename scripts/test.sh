#!/usr/bin/env bash
# Every check of this repository, in the order in which they fail fastest: ./scripts/test.sh
#
# GPU tests are required, never skipped in silence. Where no Vulkan driver is found and apt is at hand,
# Mesa's software Vulkan is installed. Without any driver the run fails; VECDRIFT_ALLOW_NO_GPU=1 lets it
# pass with the GPU untested. Cooperative matrices need the newer Mesa of scripts/second-vulkan.sh.
#
# With --oracles only `evaluate` is held against the real packages (mteb, pytrec_eval, ir_measures,
# ranx, scikit-learn, SciPy) on random sets: they are installed into target/oracles, some gigabytes from PyPI.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

times=()

step() {
    local name=$1 start=$SECONDS
    shift
    printf '\n==> %s\n' "$name"
    "$@"
    times+=("$(printf '%5d s  %s' $((SECONDS - start)) "$name")")
}

any_file() {
    local pattern
    for pattern in "$@"; do
        compgen -G "$pattern" >/dev/null && return
    done
    return 1
}

has_driver() {
    # Metal belongs to macOS, and a driver named by hand counts as one.
    [[ $(uname) == Darwin || -n ${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-} ]] && return
    # Containers with an NVIDIA driver often lack the loader.
    any_file '/usr/lib*/libvulkan.so.1' '/usr/lib/*/libvulkan.so.1' &&
        any_file '/usr/share/vulkan/icd.d/*.json' '/etc/vulkan/icd.d/*.json'
}

gpu_driver() {
    has_driver || apt_install mesa-vulkan-drivers libvulkan1
    if has_driver; then
        export VECDRIFT_REQUIRE_GPU=1
        # Mesa complains on stderr, once per listing, where there is no desktop session.
        export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}
        echo 'a driver is there: GPU tests are required'
        return
    fi
    boxed 'NO VULKAN DRIVER: the GPU tests CANNOT RUN, so half of this program is untested.' \
        'Install one (Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1),' \
        'or set VECDRIFT_ALLOW_NO_GPU=1 to go on without.'
    [[ ${VECDRIFT_ALLOW_NO_GPU:-} == 1 ]]
}

spirv_val() {
    command -v spirv-val >/dev/null || apt_install spirv-tools
    if command -v spirv-val >/dev/null; then
        export VECDRIFT_REQUIRE_SPIRV_VAL=1
        echo 'spirv-val is there: every shader goes through it'
    else
        boxed 'NO spirv-val: the shaders do NOT go through it (Debian, Ubuntu: apt-get install spirv-tools).'
    fi
}

has_browser() {
    local name
    for name in chromium chromium-browser google-chrome; do
        command -v $name >/dev/null && return
    done
    return 1
}

browser() {
    has_browser || apt_install chromium
    if has_browser; then
        export VECDRIFT_REQUIRE_BROWSER=1
        echo 'Chromium is there: the report is tested in it'
    else
        boxed 'NO CHROMIUM: the report is NOT TESTED in a browser (Debian: apt-get install chromium).'
    fi
}

# The script for real GPUs, on whatever is here. The tests themselves ran before.
gpu_check() {
    [[ ${VECDRIFT_REQUIRE_GPU:-} == 1 ]] || {
        echo 'skipped: there is no driver'
        return
    }
    local tool
    for tool in timeout strip python3; do
        command -v $tool >/dev/null || {
            boxed "scripts/gpu-check.sh was NOT RUN: it needs $tool."
            return
        }
    done
    VECDRIFT_PROFILE=dev scripts/gpu-build.sh target/gpu-check
    OUT=target/gpu-check/out VECDRIFT_GPU_CHECK_SCALE=tiny \
        VECDRIFT_GPU_CHECK_PARTS='stress product nearest pair_sums pair_histogram transfer peers' \
        target/gpu-check/gpu-check.sh target/gpu-check
}

quickstart() {
    rm -rf target/audit
    cargo run --locked --quiet -- \
        audit fixtures/reference.parquet fixtures/current.parquet --out target/audit
    local file
    for file in report.html result.json items.parquet; do
        [[ -s target/audit/$file ]] || {
            echo "target/audit/$file: missing or empty after the audit" >&2
            return 1
        }
    done
}

dependencies() {
    if command -v cargo-deny >/dev/null; then
        # The advisory database needs the network: `cargo deny check advisories` before a release.
        cargo deny check licenses bans sources
    else
        echo 'skipped: cargo-deny is not installed (cargo install cargo-deny --locked)'
    fi
}

oracles() {
    python3 -m venv target/oracles
    target/oracles/bin/pip install --quiet mteb==2.26.24 pytrec_eval-terrier==0.5.11 \
        ir-measures==0.4.3 ranx==0.3.21 scikit-learn==1.9.1 pyarrow
    cargo build --locked
    HF_HUB_OFFLINE=1 target/oracles/bin/python tests/oracles/random_rankings.py target/debug/vecdrift 100
    target/oracles/bin/python tests/oracles/random_tasks.py target/debug/vecdrift 10
}

if [[ ${1:-} == --oracles ]]; then
    step 'evaluate against the real packages' oracles
    exit
fi

step 'GPU driver' gpu_driver
step 'spirv-val' spirv_val
step 'browser' browser
step 'format' cargo fmt --check
step 'lints' cargo clippy --all-targets --locked -- -D warnings
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked
# The dev profile is optimised and keeps debug assertions: it serves development, tests and benches, so
# dependencies are compiled once.
# Cooperative matrices are required where the second Vulkan has them, not here.
step 'tests' env -u VECDRIFT_REQUIRE_COOPERATIVE_MATRIX cargo test --locked
step 'GPU tests on a second Vulkan' scripts/second-vulkan.sh
step 'benches build' cargo bench --profile dev --no-run --locked
step 'GPU check, tiny' gpu_check
step 'the quickstart runs' quickstart
step 'dependencies' dependencies

printf '\n==> all checks passed\n'
printf '%s\n' "${times[@]}"
