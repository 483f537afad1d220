# What the scripts share: source it.

# Says something that must not be overlooked: boxed LINE...
boxed() {
    local edge
    edge=$(printf '*%.0s' {1..100})
    {
        echo "$edge"
        printf '  %s\n' "$@"
        echo "$edge"
    } >&2
}

# Installs Debian packages where apt and the right to use it are at hand; says nothing where not.
apt_install() {
    local as_root=()
    if [[ $EUID -ne 0 ]]; then
        sudo -n true 2>/dev/null || return 0
        as_root=(sudo -n)
    fi
    command -v apt-get >/dev/null || return 0
    local apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q)
    # Package lists may be missing or stale; a failed update can still leave usable ones.
    "${apt[@]}" update || true
    "${apt[@]}" install -y --no-install-recommends "$@" || true
}

# Paths of the executables of one kind (bin, bench) among Cargo's messages on standard input.
executables() {
    sed -n '/"kind":\["'"$1"'"\]/s/.*"executable":"\([^"]*\)".*/\1/p'
}

# Builds the unit-test and the integration-test binary and prints their paths: test_binaries [CARGO FLAG...]
test_binaries() {
    local paths
    # The last "test" before the features is the profile's: it tells test binaries from the program.
    paths=$(cargo test --no-run --locked --lib --test all --message-format=json "$@" |
        sed -n 's/.*"test":true},"features".*"executable":"\([^"]*\)".*/\1/p')
    [[ $(wc -l <<<"$paths") -eq 2 ]] || {
        echo "expected two test binaries, cargo built: $paths" >&2
        return 1
    }
    echo "$paths"
}
