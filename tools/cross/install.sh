#!/usr/bin/env bash
# Cross toolchain and emulators for Debian 12 on x86-64, where `rustup target add` has no server to ask.
# Needs root, and uses apt and cargo by package name alone. A second run takes seconds: every step leaves a stamp.
#
#   bash tools/cross/install.sh TARGET...
#
#   RUST_CROSS=/opt/rust-cross  where the toolchain goes
#   WASM_BINDGEN=0.2.130        version of wasm-bindgen-cli [default: that of Cargo.lock]
#   SKIP_TOOLS=1                the standard libraries alone: no emulators, no wasm-bindgen
#
# Debian's `rustc-web` packages are unpacked there, not installed. They bring std for x86_64 and its source, of
# which std for wasm32 and core for riscv32imc are built. `cargo xtask cross` finds the result by itself.
set -euo pipefail
PREFIX=${RUST_CROSS:-/opt/rust-cross}
SKIP_TOOLS=${SKIP_TOOLS:-}
NAME=rust-cross
HOST=x86_64-unknown-linux-gnu
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
WASM_BINDGEN=${WASM_BINDGEN:-$(awk '/^name = "wasm-bindgen"$/ { getline; gsub(/version = |"/, ""); print; exit }' "$ROOT/Cargo.lock")}

[ $# -gt 0 ] || { echo "usage: $0 TARGET..." >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "run as root: this installs packages" >&2; exit 2; }
command -v apt-get >/dev/null || { echo "this needs Debian's apt-get" >&2; exit 2; }

export DEBIAN_FRONTEND=noninteractive
# The build of std must not see the settings of this project's build.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_TARGET_DIR RUSTC RUSTC_WRAPPER RUSTUP_TOOLCHAIN CARGO
APT=(-y -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0)
WORK=$(mktemp -d /var/tmp/rust-cross.XXXXXX)
chmod 755 "$WORK"
trap 'rm -rf "$WORK"' EXIT
mkdir -p "$PREFIX/.stamps"

# step NAME KEY COMMAND...: runs the command unless it has already run for the same key
step() {
    local stamp=$PREFIX/.stamps/$1 key=$2 start=$SECONDS
    if [ "$(cat "$stamp" 2>/dev/null || true)" = "$key" ]; then
        echo "$1: there"
        return
    fi
    rm -f "$stamp"
    "${@:3}"
    echo "$key" >"$stamp"
    echo "$1: $((SECONDS - start)) s"
}

packages() {
    apt-get "${APT[@]}" install --no-install-recommends "$@" >"$WORK/apt.log" 2>&1 || { tail -20 "$WORK/apt.log"; return 1; }
}

fresh=$(find /var/lib/apt/lists -name '*Packages*' -mmin -1440 -print -quit 2>/dev/null || true)
[ -n "$fresh" ] || apt-get "${APT[@]}" update
version=$(apt-cache policy rustc-web | awk '/Candidate:/ { print $2 }')
release=${version%%+*}
minor=${release%.*}
[ -n "$release" ] && [ "$release" != "(none)" ] || { echo "apt has no package rustc-web" >&2; exit 3; }

# rustc, cargo and std's source.
toolchain() {
    local llvm debs=$WORK/debs all=$WORK/all f
    llvm=$(apt-cache show "libstd-rust-web-$minor=$version" | grep -oE 'libllvm[0-9]+' | head -1)
    llvm=${llvm#libllvm}
    # shellcheck disable=SC2046
    packages patchelf "libllvm$llvm" "lld-$llvm" libcurl4 libssl3 libssh2-1 libsqlite3-0 gcc libc6-dev \
        $(apt-cache show "cargo-web=$version" | grep -oE 'libgit2-[0-9.]+' | head -1)
    mkdir -p "$debs" "$all"
    # apt downloads as a user of its own.
    chmod 777 "$debs"
    (cd "$debs" && apt-get -qq download rustc-web="$version" cargo-web="$version" rust-web-src="$version" \
        rust-web-clippy="$version" libstd-rust-web-dev="$version" "libstd-rust-web-$minor=$version")
    for f in "$debs"/*.deb; do
        case $f in *rust-web-src*) ;; *) dpkg -x "$f" "$all" ;; esac
    done
    dpkg-deb --fsys-tarfile "$debs"/rust-web-src*.deb | tar -x -C "$all" "./usr/src/rustc-$release/library"
    rm -rf "$PREFIX/bin" "$PREFIX/lib"
    rm -f "$PREFIX"/.stamps/std-*
    mkdir -p "$PREFIX/bin" "$PREFIX/lib/rustlib/src/rust" "$PREFIX/lib/rustlib/$HOST/bin"
    cp "$all"/usr/bin/{rustc,rustdoc,cargo,cargo-clippy,clippy-driver} "$PREFIX/bin/"
    cp "$all"/usr/lib/x86_64-linux-gnu/librustc_driver-*.so "$PREFIX/lib/"
    cp -r "$all"/usr/lib/rustlib/{etc,$HOST} "$PREFIX/lib/rustlib/"
    mv "$all/usr/src/rustc-$release/library" "$PREFIX/lib/rustlib/src/rust/"
    ln -sfn "/usr/lib/llvm-$llvm/bin/lld" "$PREFIX/lib/rustlib/$HOST/bin/rust-lld"
    for f in rustc rustdoc clippy-driver; do
        patchelf --set-rpath "\$ORIGIN/../lib" "$PREFIX/bin/$f"
    done
    patchelf --set-rpath "\$ORIGIN" "$PREFIX"/lib/librustc_driver-*.so
    if command -v rustup >/dev/null; then rustup toolchain link "$NAME" "$PREFIX"; fi
}

# build_std TARGET CRATES FEATURES: builds std of its source and the libraries that come with that, offline.
build_std() {
    local lib=$PREFIX/lib/rustlib seed=$WORK/seed
    mkdir -p "$seed/src" "$WORK/home"
    echo '#![no_std]' >"$seed/src/lib.rs"
    printf '[package]\nname = "seed"\nedition = "2021"\n[workspace]\n' >"$seed/Cargo.toml"
    # Without bitcode `lto = "fat"` fails.
    (cd "$seed" && env PATH="$PREFIX/bin:/usr/bin:/bin" CARGO_HOME="$WORK/home" RUSTC_BOOTSTRAP=1 \
        RUSTFLAGS=-Cembed-bitcode=yes "$PREFIX/bin/cargo" build -q --offline --release \
        -Zbuild-std="$2" -Zbuild-std-features="$3" --target "$1" \
        --config 'source.crates-io.replace-with="vendored"' \
        --config "source.vendored.directory=\"$lib/src/rust/library/vendor\"")
    rm -rf "${lib:?}/$1/lib"
    mkdir -p "$lib/$1/lib"
    cp "$seed/target/$1/release/deps/"*.rlib "$lib/$1/lib/"
    rm -f "$lib/$1/lib"/libseed-*
}

STD=std,panic_abort,panic_unwind,proc_macro,test
# Debian's std of the same version, by lists of packages of another architecture that only this command sees.
std_aarch64() {
    local arm=$WORK/arm
    mkdir -p "$arm"/{lists/partial,cache/archives/partial,deb}
    chmod -R 777 "$arm"
    local options=(-qq -o APT::Architecture=amd64 -o APT::Architectures::=amd64 -o APT::Architectures::=arm64
        -o Dir::State::Lists="$arm/lists" -o Dir::Cache="$arm/cache")
    if apt-get "${options[@]}" update &&
        (cd "$arm/deb" && apt-get "${options[@]}" download "libstd-rust-web-dev:arm64=$version"); then
        dpkg -x "$arm"/deb/*.deb "$arm/all"
        rm -rf "$PREFIX/lib/rustlib/aarch64-unknown-linux-gnu"
        cp -r "$arm/all/usr/lib/rustlib/aarch64-unknown-linux-gnu" "$PREFIX/lib/rustlib/"
    else
        build_std aarch64-unknown-linux-gnu $STD backtrace,panic-unwind
    fi
}

# Not optimized: minutes sooner, and its own work is short.
wasm_bindgen() {
    local install=(install --quiet --debug --force --root "$PREFIX/tools" wasm-bindgen-cli --version "=$WASM_BINDGEN"
        --no-default-features --bin wasm-bindgen)
    # A mirror can lack a version that the program's own lock file names; then cargo may choose.
    (cd "$WORK" && export PATH="$PREFIX/bin:$PATH" CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$WORK/target"
        cargo "${install[@]}" --locked 2>"$WORK/locked.log" || cargo "${install[@]}")
}

for target in "$@"; do
    case $target in
    x86_64-unknown-linux-gnu) ;;
    aarch64-unknown-linux-gnu)
        step aarch64-linker 1 packages gcc-aarch64-linux-gnu libc6-dev-arm64-cross
        step toolchain "$version" toolchain
        step std-aarch64 "$version" std_aarch64
        ;;
    wasm32-unknown-unknown)
        step toolchain "$version" toolchain
        step std-wasm32 "$version" build_std wasm32-unknown-unknown $STD backtrace,panic-unwind
        ;;
    riscv32imc-unknown-none-elf)
        step toolchain "$version" toolchain
        step std-riscv32imc "$version" build_std riscv32imc-unknown-none-elf core,alloc compiler-builtins-mem
        ;;
    *)
        echo "no way to install $target" >&2
        exit 2
        ;;
    esac
    [ -z "$SKIP_TOOLS" ] || continue
    case $target in
    x86_64-* | aarch64-*) step qemu-user 1 packages qemu-user-static ;;
    riscv32*) step qemu-system 1 packages qemu-system-misc ;;
    wasm32-*) step wasm-bindgen "$WASM_BINDGEN" wasm_bindgen ;;
    esac
done
