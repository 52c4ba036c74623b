#!/bin/sh
# Set up everything `make drill` and `make test` need; a second call returns at once.
# A virtual environment in .venv from the hash-pinned lock, and Debian's Prometheus, Alertmanager and node_exporter when
# none is found.
set -eu
cd "$(dirname "$0")/.."

PYTHON="${PYTHON:-python3}"
say() { printf '%s\n' "setup: $*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then sudo -n "$@"
    else return 127
    fi
}

can_be_root() { as_root true 2>/dev/null; }

# Debian starts a service as soon as its package is unpacked unless policy-rc.d says no; ours run as children only.
install_packages() {
    command -v apt-get >/dev/null 2>&1 || die "missing: $*. Install them with your package manager and try again."
    can_be_root || die "missing: $*. Run as root: apt-get install --no-install-recommends $*"
    policy=/usr/sbin/policy-rc.d
    kept=""
    if [ -e "$policy" ]; then kept="$policy.before-tapewatch"; as_root mv "$policy" "$kept"; fi
    restore() {
        as_root rm -f "$policy"
        if [ -n "$kept" ]; then as_root mv "$kept" "$policy"; fi
    }
    trap restore EXIT INT TERM
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null || say "apt-get update failed; trying with what is known"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$@" >/dev/null ||
        { restore; trap - EXIT INT TERM; die "apt-get could not install $*; its words are above"; }
    restore
    trap - EXIT INT TERM
}

# In CI the tests on real servers must not be skipped; a person has them installed by `make estate`.
wants_servers() {
    [ -z "${ESTATE_REQUIRED:-}" ] || return 0
    case "${CI:-}" in ""|0|false) return 1 ;; esac
}

found() { command -v "$1" >/dev/null 2>&1; }

monitoring() {
    packages=""
    if ! found "${TAPEWATCH_PROMETHEUS:-prometheus}" || ! found promtool; then packages="prometheus"; fi
    if ! found "${TAPEWATCH_ALERTMANAGER:-prometheus-alertmanager}" || ! found amtool; then
        packages="$packages prometheus-alertmanager"
    fi
    found "${TAPEWATCH_NODE_EXPORTER:-prometheus-node-exporter}" || packages="$packages prometheus-node-exporter"
    if wants_servers; then
        if ! found postgres && ! ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then
            packages="$packages postgresql"
        fi
        found rabbitmq-server || [ -x /usr/sbin/rabbitmq-server ] || packages="$packages rabbitmq-server"
    fi
    found setpriv || packages="$packages util-linux"
    # shellcheck disable=SC2086 # package names are words of their own
    [ -z "$packages" ] || install_packages $packages
}

# nginx and HAProxy, which stand in front of the gateways; for `make estate` also what fetches and runs Java's servers.
edge() {
    [ -n "${EDGE_REQUIRED:-}" ] || wants_servers || return 0
    packages=""
    if [ -n "${ESTATE_REQUIRED:-}" ]; then
        found java || packages="openjdk-17-jre-headless"
        found mvn || packages="$packages maven"
        found openssl || packages="$packages openssl"
    fi
    found nginx || [ -x /usr/sbin/nginx ] || packages="$packages nginx-light"
    found haproxy || [ -x /usr/sbin/haproxy ] || packages="$packages haproxy"
    # shellcheck disable=SC2086 # package names are words of their own
    [ -z "$packages" ] || install_packages $packages
}

environment() {
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "Python 3.11 or newer is needed, $PYTHON is older; name another with PYTHON=..."
    stamp=.venv/.tapewatch-setup
    wanted="$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)"
    if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null || true)" = "$wanted" ]; then return; fi
    if [ ! -x .venv/bin/pip ]; then
        "$PYTHON" -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
        say "making .venv"
        "$PYTHON" -m venv .venv
    fi
    say "installing the locked packages"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
    printf '%s\n' "$wanted" >"$stamp"
    testbed
}

# Only `make kube`, `make elastic` and the tests on them need these; nothing is installed for them unasked.
testbed() {
    need="$(sed -n 's/^go //p' deploy/testbed/go.mod)"
    found go || say "the Kubernetes test bed (make kube) is built with Go $need or newer, and there is no Go: install it for that"
    found mvn || say "a real Elasticsearch (make elastic, tests on it) is fetched by Maven, and there is none: apt-get install maven"
    found java || say "a real Elasticsearch needs Java 17 or newer: apt-get install openjdk-17-jre-headless"
    found postgres || ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 ||
        say "tests on a real PostgreSQL need one: apt-get install --no-install-recommends postgresql"
    found rabbitmq-server || [ -x /usr/sbin/rabbitmq-server ] ||
        say "tests on a real RabbitMQ need one: apt-get install --no-install-recommends rabbitmq-server"
    found openssl || say "the Kubernetes test bed (make kube) needs openssl: apt-get install openssl"
}

monitoring
edge
environment
say "ready"
