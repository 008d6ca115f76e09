# The functions that the scripts of .ci share. Each script sources this file.
#
# Alone, a script has a temporary directory of its own, which it removes at the end. Under .ci/run all
# scripts use the directory $ASYNCSVC_CI_WORK, so that one builds the wheel for the others.
#
# shellcheck shell=bash
set -euo pipefail

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
image=asyncsvc-ci/postgres:15 # built from Debian's PostgreSQL

cd "$checkout"
unset PYTEST_ADDOPTS PYTHONHOME PYTHONPATH VIRTUAL_ENV
export DEBIAN_FRONTEND=noninteractive
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# pip reads this as --no-compile. To compile all modules takes longer than to use some of them.
export PIP_NO_COMPILE=no

under_run=${ASYNCSVC_CI_WORK:+yes}
work=${ASYNCSVC_CI_WORK:-$(mktemp -d -t asyncsvc-ci.XXXXXX)}
chmod 755 "$work" # root starts PostgreSQL as another user, which reads the programs here

# clean_up [STATUS]: end the script with the status, by default that of its last command.
clean_up() {
    local status=${1:-$?}
    trap - EXIT
    stop_docker
    if [ -z "$under_run" ]; then
        rm -rf "$work" || echo "$work is not removed completely" >&2
    fi
    exit "$status"
}
trap clean_up EXIT

# --------------------------------------------------------------------------------- packages

# need PACKAGE...: install the Debian packages whose programs are missing.
need() {
    local missing=() package
    for package in "$@"; do
        has "$package" || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        install_packages "${missing[@]}"
        echo "installed: ${missing[*]}"
    fi
}

has() {
    case $1 in
        ca-certificates) [ -e /etc/ssl/certs/ca-certificates.crt ] ;;
        docker-compose) docker compose version || command -v docker-compose ;;
        docker.io) docker info || command -v dockerd ;;
        iptables) docker info || command -v iptables ;;
        mariadb-client-core) command -v mariadb ;;
        mariadb-server-core) [ -x /usr/sbin/mariadbd ] ;;
        postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' ;;
        postgresql-15) [ -x /usr/lib/postgresql/15/bin/postgres ] ;;
        python3-venv) python3 -c 'import ensurepip, venv' ;;
        *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

# Put a PgBouncer that can keep prepared statements, 1.21 or newer, first on the PATH.
use_new_pgbouncer() {
    local version
    need pgbouncer
    version=$(PATH=$PATH:/usr/sbin pgbouncer --version | awk 'NR == 1 { print $2 }')
    if [ "$(printf '%s\n' 1.21 "$version" | sort --version-sort | head -n 1)" != 1.21 ]; then
        [ -x "$work/pgbouncer/pgbouncer" ] || .ci/get-pgbouncer "$work/pgbouncer"
        export PATH=$work/pgbouncer:$PATH
    fi
}

# Install packages as root. An automatic run uses sudo.
install_packages() {
    local as_root=()
    if [ "$(id -u)" != 0 ]; then
        if [ -z "${CI:-}" ]; then
            echo "missing: $*. Install these Debian packages, or their programs." >&2
            return 1
        fi
        as_root=(sudo --non-interactive --preserve-env=DEBIAN_FRONTEND)
    fi
    if [ ! -e "$work/updated" ]; then # once in a run
        "${as_root[@]}" apt-get update -qq -o Acquire::Retries=3 >/dev/null || true
        touch "$work/updated"
    fi
    case " $* " in *" postgresql"*)
        # The package must not create and start a cluster.
        apt_install postgresql-common
        "${as_root[@]}" sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' \
            /etc/postgresql-common/createcluster.conf
        ;;
    esac
    apt_install "$@"
}

apt_install() {
    if ! "${as_root[@]}" apt-get install -y -qq --no-install-recommends -o Acquire::Retries=3 \
        -o DPkg::Lock::Timeout=120 "$@" >"$work/apt.log" 2>&1; then
        tail -n 30 "$work/apt.log" >&2
        return 1
    fi
}

# ---------------------------------------------------------------------------------- container

# Start a container engine unless one answers. It runs until the end of this script.
start_docker() {
    need docker.io iptables
    if docker info >/dev/null 2>&1; then
        echo "a container engine answers"
        return
    fi
    .ci/start-docker "$work/docker"
    # The engine runs beside the tests, even inside a container, where testcontainers expects it at
    # the gateway. Ryuk, the cleaner of testcontainers, is one more image to download.
    export DOCKER_HOST=unix://$work/docker/docker.sock
    export TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1
    export TESTCONTAINERS_CONNECTION_MODE=docker_host
    export TESTCONTAINERS_RYUK_DISABLED=true
    docker_is_ours=yes
}

# Remove the containers that interrupted tests left, and stop the engine if this script started it.
stop_docker() {
    local left pid
    if [ "${uses_container:-}" ]; then
        left=$(docker ps -aq --filter label=asyncsvc.tests --filter "ancestor=$image" 2>/dev/null || true)
        if [ -n "$left" ]; then
            # shellcheck disable=SC2086 # one word for each container
            docker rm --force --volumes $left >/dev/null 2>&1 || true
        fi
    fi
    [ "${docker_is_ours:-}" ] || return 0
    pid=$(cat "$work/docker/docker.pid" 2>/dev/null || true)
    if [ -n "$pid" ]; then
        kill "$pid" 2>/dev/null || true
        # The engine removes this file at its end. Its process can remain as a zombie.
        for _ in $(seq 100); do
            [ -e "$work/docker/docker.pid" ] || break
            sleep 0.2
        done
    fi
    # If / is not a shared mount, the engine mounts its own directory and can leave it mounted.
    awk -v below="$work/" 'index($2, below) == 1 { print $2 }' /proc/mounts | sort -r \
        | while read -r mounted; do
            umount "$mounted" 2>/dev/null || umount --lazy "$mounted" || true
        done
    rm -rf "$work/docker"
    unset docker_is_ours DOCKER_HOST TESTCONTAINERS_HOST_OVERRIDE TESTCONTAINERS_CONNECTION_MODE \
        TESTCONTAINERS_RYUK_DISABLED
}

# Choose the server of the tests: the server that the environment names, or a container of Debian's
# PostgreSQL 15.
use_container() {
    if [ -z "${ASYNCSVC_TEST_DSN:-}${ASYNCSVC_TEST_IMAGE:-}" ]; then
        need postgresql-15
        start_docker
        .ci/build-postgres-image "$image"
        uses_container=yes
        export ASYNCSVC_TEST_IMAGE=$image
    fi
}

# -------------------------------------------------------------------------------- environments

# environment NAME PYTHON REQUIREMENT...: create $work/NAME unless it exists. --group reads the
# pyproject.toml of the checkout and needs pip 25.1.
environment() {
    local directory=$work/$1 python=$2
    shift 2
    [ -e "$directory/complete" ] || {
        "$python" -m venv "$directory" \
            && "$directory/bin/pip" install --quiet --upgrade 'pip>=25.1' \
            && "$directory/bin/pip" install --quiet "$@" \
            && touch "$directory/complete"
    }
}

# Set $tools to the directory of the tools of the group `dev`: the checkout's .venv, which `make setup`
# creates, or under .ci/run a new environment. Under .ci/run no cache is written to the checkout.
use_tools() {
    tools=$checkout/.venv/bin
    if [ -n "$under_run" ] || [ ! -x "$tools/ruff" ]; then
        need git python3-venv ca-certificates
        environment tools python3 --editable . --group dev
        tools=$work/tools/bin
        export RUFF_CACHE_DIR=$work/ruff MYPY_CACHE_DIR=$work/mypy
        export PYTHONPYCACHEPREFIX=$work/pycache
    fi
}

# Set $wheel and $sdist, which .ci/build builds unless they exist.
use_distributions() {
    if ! compgen -G "$work/dist/*.whl" >/dev/null; then
        ASYNCSVC_CI_WORK=$work .ci/build
    fi
    # shellcheck disable=SC2034 # the scripts use them
    wheel=$(echo "$work"/dist/*.whl) sdist=$(echo "$work"/dist/*.tar.gz)
}

# python_of VERSION: print the program of that version, on the PATH or from pyenv; fail without one.
python_of() {
    local program
    for program in "python$1" python3 "${PYENV_ROOT:-$HOME/.pyenv}/versions/$1".*/bin/python; do
        if [ "$("$program" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = "$1" ]; then
            echo "$program"
            return
        fi
    done
    return 1
}

# --------------------------------------------------------------------------------------- tests

# copy_checkout DIRECTORY [PATHSPEC...]: copy the tracked and the new files.
copy_checkout() {
    local directory=$1
    shift
    mkdir "$directory"
    git ls-files -z --cached --others --exclude-standard -- "$@" \
        | tar --create --null --files-from=- | tar --extract --directory "$directory"
}

# with_timeout COMMAND...: interrupt a test run after 30 minutes. It then prints the running test and
# stops its server.
with_timeout() {
    timeout --signal=INT --kill-after=60 1800 "$@"
}
