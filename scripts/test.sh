#!/usr/bin/env bash
# Every check of this repository, in the order in which they fail fastest: ./scripts/test.sh
#
# GPU tests are required, never skipped in silence. Where no Vulkan driver is found and apt is at hand,
# Mesa's software Vulkan is installed. Without any driver the run fails; VECDRIFT_ALLOW_NO_GPU=1 lets it
# pass with the GPU untested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

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

install_software_vulkan() {
    local as_root=()
    if [[ $EUID -ne 0 ]]; then
        sudo -n true 2>/dev/null || return 0
        as_root=(sudo -n)
    fi
    command -v apt-get >/dev/null || return 0
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q)
    # Package lists may be missing or stale; a failed update can still leave usable ones.
    "${apt[@]}" update || true
    "${apt[@]}" install -y --no-install-recommends mesa-vulkan-drivers libvulkan1 || true
}

gpu_driver() {
    has_driver || install_software_vulkan
    if has_driver; then
        export VECDRIFT_REQUIRE_GPU=1
        # Mesa complains on stderr, once per listing, where there is no desktop session.
        export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-${TMPDIR:-/tmp}}
        echo 'a driver is there: GPU tests are required'
        return
    fi
    cat >&2 <<'END'
********************************************************************************
  NO VULKAN DRIVER: the GPU tests CANNOT RUN, so half of this program is untested.
  Install one (Debian, Ubuntu: apt-get install mesa-vulkan-drivers libvulkan1),
  or set VECDRIFT_ALLOW_NO_GPU=1 to go on without.
********************************************************************************
END
    [[ ${VECDRIFT_ALLOW_NO_GPU:-} == 1 ]]
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

step 'GPU driver' gpu_driver
step 'format' cargo fmt --check
step 'lints' cargo clippy --all-targets --locked -- -D warnings
step 'documentation' env RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --locked
# The dev profile is optimised and keeps debug assertions: it serves development, tests and benches, so
# dependencies are compiled once.
step 'tests' cargo test --locked
step 'benches build' cargo bench --profile dev --no-run --locked
step 'the quickstart runs' quickstart
step 'dependencies' dependencies

printf '\n==> all checks passed\n'
printf '%s\n' "${times[@]}"
