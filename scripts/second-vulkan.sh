#!/usr/bin/env bash
# The GPU tests on a second Vulkan implementation: ./scripts/second-vulkan.sh
#
# Debian sid's Mesa computes cooperative matrices (tensor cores) on the CPU, which no released Debian's
# does. It is put into a chroot, once; later runs find it in ${XDG_CACHE_HOME:-/var/cache}/vecdrift, and
# removing that folder renews it. Where it cannot be had, a box says what was not tested;
# VECDRIFT_REQUIRE_COOPERATIVE_MATRIX=1 makes that a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/common.sh

root=$PWD
cache=${XDG_CACHE_HOME:-/var/cache}/vecdrift
# The number grows with the recipe below, so that an older chroot is not taken for a new one.
chroot=$cache/sid-$(uname -m)-1
packages=mesa-vulkan-drivers,libvulkan1,spirv-tools

not_run() {
    boxed "COOPERATIVE-MATRIX CORES: NOT RUN. $1" \
        'They are tested on Debian sid'\''s Mesa, which needs root, Linux on x86-64 or aarch64,' \
        'debootstrap and a Debian mirror.'
    [[ ${VECDRIFT_REQUIRE_COOPERATIVE_MATRIX:-} != 1 ]]
    exit
}

# Debian mirrors, the one that apt is configured with first.
mirrors() {
    {
        if command -v apt-get >/dev/null; then
            apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
                sed -n 's#/debian/*$#/debian#p'
        fi
        echo http://deb.debian.org/debian
    } | awk '!seen[$0]++'
}

# Puts Debian sid into $chroot, all of it or nothing.
make_chroot() {
    command -v debootstrap >/dev/null || apt_install debootstrap debian-archive-keyring >/dev/null
    command -v debootstrap >/dev/null || not_run 'debootstrap is not to be had.'
    mkdir -p "$cache"
    if [[ -z ${http_proxy:-} ]] && command -v apt-config >/dev/null; then
        local proxy=
        eval "$(apt-config shell proxy Acquire::http::Proxy)"
        [[ -z $proxy || $proxy == DIRECT ]] || export http_proxy=$proxy
    fi
    local mirror log=target/debootstrap.log
    mkdir -p target
    for mirror in $(mirrors); do
        partial=$(mktemp -d "$chroot.XXXXXX")
        if timeout 900 debootstrap --variant=minbase --include="$packages" sid "$partial" "$mirror" \
            >"$log" 2>&1; then
            chmod 755 "$partial"
            rm -rf "$partial"/var/cache/apt/archives/*.deb
            # Another run may have been faster.
            mv -T "$partial" "$chroot" 2>/dev/null || discard_partial
            return
        fi
        tail -n 5 "$log" >&2
        discard_partial
    done
    not_run "debootstrap failed: $log says why."
}

# What a run that was stopped half-way leaves must not fill the disk, and nothing of a file system that is
# still mounted in it may be touched.
partial=
discard_partial() {
    [[ -n $partial && -d $partial ]] || return 0
    umount "$partial/proc" "$partial/sys" 2>/dev/null || true
    rm -rf --one-file-system "$partial"
}

copies=
clean_up() {
    discard_partial
    [[ -z $copies ]] || rm -rf "$copies"
}

# Copies the tests and what they read to where they were built, and runs those of the GPU.
run_tests() {
    local run binary failed=0
    # Of this run alone: other checkouts may be tested in the same chroot at the same time.
    copies=$(mktemp -d "$chroot/tmp/tests.XXXXXX")
    run=${copies#"$chroot"}
    mkdir -p "$chroot$root/fixtures"
    cp -r fixtures/. "$chroot$root/fixtures/"
    for binary in "$@"; do
        cp "$binary" "$copies/"
        # The folder for caches is new each time: tests find no profile of a device from earlier runs.
        rm -rf "$copies/home"
        mkdir "$copies/home"
        chroot "$chroot" env -i PATH=/usr/bin:/bin HOME="$run/home" XDG_RUNTIME_DIR=/tmp \
            RUST_BACKTRACE=1 VECDRIFT_REQUIRE_GPU=1 VECDRIFT_REQUIRE_SPIRV_VAL=1 \
            VECDRIFT_REQUIRE_COOPERATIVE_MATRIX=1 \
            "$run/${binary##*/}" gpu spirv adversarial || failed=1
    done
    return $failed
}

[[ $(uname) == Linux && $(uname -m) == @(x86_64|aarch64) ]] || not_run "This is $(uname) on $(uname -m)."
[[ $EUID -eq 0 ]] || not_run 'This user is not root.'
trap clean_up EXIT
[[ -d $chroot ]] || make_chroot
chroot "$chroot" true 2>/dev/null || not_run "$chroot cannot be entered."
mesa=$(chroot "$chroot" dpkg-query -W -f '${Version}' mesa-vulkan-drivers)
echo "Mesa $mesa in $chroot"
tests=$(test_binaries)
# shellcheck disable=SC2086 # one path per word
run_tests $tests
