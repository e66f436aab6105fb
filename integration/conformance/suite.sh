#!/bin/bash
# Gets and builds the validation suite of OCI runtime-tools, unless that is done; prints its directory. RUNTIME_TOOLS
# names a tree of its source to be used instead. The source is that of Debian, checked against apt's signed index.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=../host.sh
. "$here/../host.sh"

source=golang-github-opencontainers-runtime-tools
packages=(golang-go golang-github-blang-semver-dev golang-github-google-uuid-dev golang-github-hashicorp-go-multierror-dev
    golang-github-mrunalp-fileutils-dev golang-github-opencontainers-selinux-dev golang-github-opencontainers-specs-dev
    golang-github-sirupsen-logrus-dev golang-github-urfave-cli-dev golang-github-xeipuuv-gojsonschema-dev
    golang-gocapability-dev golang-golang-x-sys-dev)
recipe=$({
    cat "$here/suite.sh" "$here/tap.go"
    echo "${RUNTIME_TOOLS-}"
} | hash_of_recipe)
suite=$cache/conformance-$recipe

main() {
    if [ ! -e "$suite/programs" ] || [ -n "${RUNTIME_TOOLS-}" ]; then
        need_packages "${packages[@]}" xz-utils
        mkdir -p "$cache"
        work=$(mktemp -d "$cache/new.XXXXXX")
        trap 'rm -rf "$work"' EXIT
        build
    fi
    echo "$suite"
}

# In GOPATH mode, as Debian's packages have no modules. The programs want to run where their rootfs and runtimetest are.
build() {
    local tree=$work/go/src/github.com/opencontainers/runtime-tools
    mkdir -p "$tree" "$work/go/src/github.com/mndrix/tap-go" "$work/suite/programs"
    cp "$here/tap.go" "$work/go/src/github.com/mndrix/tap-go/"
    if [ -n "${RUNTIME_TOOLS-}" ]; then
        cp -r "$RUNTIME_TOOLS/." "$tree/"
    else
        fetch "$work/source.tar.xz"
        tar -C "$tree" --strip-components=1 -xf "$work/source.tar.xz"
    fi
    say "building the validation suite"
    (
        cd "$tree"
        export GOPATH=$work/go:/usr/share/gocode GO111MODULE=off CGO_ENABLED=0 GOCACHE=$work/build GOFLAGS=-p=1
        go build -o "$work/suite/runtimetest" ./cmd/runtimetest
        go build -o "$work/suite/programs/" ./validation/...
    ) >&2
    cp "$tree"/rootfs-*.tar.gz "$work/suite/"
    chmod -R u+w "$work"
    rm -rf "$suite"
    mv "$work/suite" "$suite"
    drop_older conformance "$recipe"
}

# By an apt of its own, which knows trixie's sources only: the host's lists stay as they are.
fetch() {
    local record file sum
    mkdir -p "$work"/apt/{lists/partial,archives/partial,sources}
    touch "$work/apt/status"
    printf '%s\n' 'Types: deb-src' "URIs: $(mirror)" 'Suites: trixie' 'Components: main' \
        'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' >"$work/apt/sources/trixie.sources"
    cat >"$work/apt/apt.conf" <<CONF
Dir::State "$work/apt"; Dir::State::status "$work/apt/status"; Dir::State::lists "$work/apt/lists";
Dir::Cache "$work/apt"; Dir::Etc::sourcelist "/dev/null"; Dir::Etc::sourceparts "$work/apt/sources";
Dir::Etc::preferencesparts "/dev/null"; Acquire::Check-Valid-Until "false"; APT::Sandbox::User "root";
CONF
    export APT_CONFIG=$work/apt/apt.conf
    apt-get -q update >&2
    record=$(apt-cache showsrc "$source")
    read -r sum file < <(sed -n '/^Checksums-Sha256/,/^[^ ]/s/^ \([0-9a-f]\{64\}\) [0-9]* \(.*\.orig\.tar\.xz\)$/\1 \2/p' <<<"$record")
    [ -n "$file" ] || die "$source: no source archive in the index of trixie"
    say "getting $file"
    unset APT_CONFIG
    /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file \
        "$(mirror)/$(sed -n 's/^Directory: //p' <<<"$record")/$file" "$1" "SHA256:$sum" >&2
}

main
