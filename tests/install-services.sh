#!/bin/sh
# Debian packages that running and testing need; only those that are missing.
#
#   install-services.sh          everything that `make test` talks to
#   install-services.sh venv     only what `python3 -m venv` needs
#   install-services.sh make     only make itself
#
# Tests start brokers of their own, on ports of their own. Debian would start the
# packaged ones at once and at every boot, so while apt runs a policy-rc.d says
# no; one that is already there belongs to the machine and is left alone.
set -eu

PYTHON=${PYTHON:-python3}
POLICY=/usr/sbin/policy-rc.d

# Debian keeps daemons where the path of an ordinary user does not look.
there() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

missing=""
need() { missing="$missing $1"; }

want_venv() {
    # Debian's venv module is always there; what it needs to put pip in is not.
    "$PYTHON" -c 'import ensurepip, venv' 2>/dev/null && return
    need "$("$PYTHON" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
}

case "${1:-all}" in
venv) want_venv ;;
make) there make || need make ;;
all)
    want_venv
    there rabbitmq-server || need rabbitmq-server
    there mosquitto || need mosquitto
    there mosquitto_pub || need mosquitto-clients
    there strace || need strace
    there nft || need nftables
    there tc || need iproute2
    there mkfs.xfs || need xfsprogs
    there nbdkit || need nbdkit
    there nbdfuse || need libnbd-bin
    there mkfs.ext4 || need e2fsprogs
    there gcc || need gcc
    # Without its headers gcc compiles nothing.
    [ -e /usr/include/stdlib.h ] || need libc6-dev
    there systemd-analyze || need systemd
    # A node from elsewhere brings its own npm, and Debian's npm would drag in a second node.
    there node || { need nodejs; there npm || need npm; }
    ;;
*)
    echo "usage: install-services.sh [venv|make]" >&2
    exit 2
    ;;
esac

[ -n "$missing" ] || exit 0

if ! there apt-get; then
    echo "missing:$missing. This machine has no apt-get: install them by its own means and try again." >&2
    exit 1
fi
if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif there sudo && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root="sudo"
else
    echo "missing:$missing. As root: apt-get install --no-install-recommends$missing" >&2
    exit 1
fi

echo "installing$missing" >&2
if [ ! -e "$POLICY" ]; then
    trap '$as_root rm -f "$POLICY"' EXIT
    trap 'exit 130' INT TERM HUP
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$POLICY" >/dev/null
    $as_root chmod 755 "$POLICY"
fi

fetch() {
    # shellcheck disable=SC2086  # a list of packages is meant to fall apart into words
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing </dev/null
}

# The lists of a fresh machine are empty or old; they are fetched only when the first attempt needs them.
fetch || { $as_root apt-get update -qq && fetch; }
