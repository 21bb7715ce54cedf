#!/bin/sh
# packages.sh PACKAGE..: installs those Debian packages that are missing;
# does and says nothing when all are there.
set -eu

missing=
for package in "$@"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

echo "installing:$missing"
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    echo "error: these packages are missing, and neither root nor sudo is there to install them:$missing" >&2
    exit 1
fi

# The nats-server package would start a server of its own on port 4222, which is
# where the embedded server of a node without configuration listens.
policy=/usr/sbin/policy-rc.d
blocked=
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod 755 $policy
    blocked=yes
fi
unblock() {
    [ -z "$blocked" ] || $as_root rm -f $policy
    blocked=
}
trap unblock EXIT

$as_root apt-get update -q
# shellcheck disable=SC2086
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $missing
unblock
case " $missing " in
*" nats-server "*)
    if [ -d /run/systemd/system ]; then
        $as_root systemctl disable --now nats-server.service
    fi
    ;;
esac
