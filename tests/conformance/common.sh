# What the runs share in which programs of other projects meet a server: where things go, a venv, the server.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=$(realpath -m "${CARGO_TARGET_DIR:-$root/target}")
export CARGO_TARGET_DIR=$target

fail() {
    echo "$*" >&2
    exit 1
}

install_packages() {
    echo "installing $*"
    export DEBIAN_FRONTEND=noninteractive
    if ! { timeout 120 apt-get -qq update && timeout 600 apt-get -qq install -y --no-install-recommends "$@"; }; then
        fail "cannot install $*; install what corresponds to it by hand"
    fi
}

# make_venv DIRECTORY REQUIREMENT...
make_venv() {
    local venv=$1
    shift
    if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        if ! python3 -m venv --clear "$venv" >/dev/null 2>&1; then
            install_packages python3 python3-venv
            python3 -m venv --clear "$venv"
        fi
    fi
    timeout 180 "$venv/bin/python" -m pip --quiet --disable-pip-version-check install "$@" \
        || fail "cannot install $*"
}

# start_server EXAMPLE [ARGUMENT...]
#
# Builds and starts the server, on a free port, and sets `address`. What else it says can be read from `SERVER`. It ends
# with the script, because its input does.
start_server() {
    local example=$1
    shift
    (cd "$root" && timeout 900 cargo build --release --example "$example") || fail "cannot build $example"
    coproc SERVER { exec "$target/release/examples/$example" 0 "$@"; }
    read -r -t 10 address <&"${SERVER[0]}" || fail "$example does not start"
}

# A panic that took the whole server along would otherwise look like a client's failure.
check_server() {
    if [[ -z ${SERVER_PID:-} ]] || ! kill -0 "$SERVER_PID" 2>/dev/null; then
        fail "the server has ended by itself"
    fi
}
