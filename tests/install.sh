#!/bin/sh
# Installs the programs that the real-component tests drive; says what to do where it may not.
# command:package pairs of Debian.
set -eu
wanted="
redis-server:redis-server
turnutils_uclient:coturn
chromium:chromium
tshark:tshark
ip:iproute2
nft:nftables
faketime:faketime
ethtool:ethtool
gcc:gcc
haproxy:haproxy
nginx:nginx-light
jq:jq
openssl:openssl
clang:clang
curl:curl
systemd-analyze:systemd
promtool:prometheus
docker-compose:docker-compose
go:golang-go
node:nodejs
npm:npm
"
missing=""
for pair in $wanted; do
    PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
[ -e /usr/include/openssl/evp.h ] || missing="$missing libssl-dev"
# What the compiled core is built with.
headers=$("$(dirname "$0")/../.venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
[ -e "$headers/Python.h" ] || missing="$missing python3-dev"
# The libraries that Helm renders its charts with.
[ -e /usr/share/gocode/src/github.com/Masterminds/sprig ] ||
    missing="$missing golang-github-masterminds-sprig-dev"
[ -e /usr/share/gocode/src/sigs.k8s.io/yaml ] || missing="$missing golang-k8s-sigs-yaml-dev"
if [ -z "$missing" ]; then
    :
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing for the tests:$missing"
    # A package that starts a daemon of its own would take the ports that the tests watch.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' > "$policy"; chmod +x "$policy"; made=1; }
    log=$(mktemp)
    if ! { DEBIAN_FRONTEND=noninteractive apt-get update -q &&
           DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing; } >"$log" 2>&1; then
        [ -z "${made:-}" ] || rm -f "$policy"
        tail -n 20 "$log" >&2
        echo "could not install:$missing" >&2
        exit 1
    fi
    [ -z "${made:-}" ] || rm -f "$policy"
    rm -f "$log"
else
    echo "The tests drive real programs that are not here. Install them with:" >&2
    echo "    sudo apt-get install$missing" >&2
    [ -z "${CI:-}" ] || exit 1
    echo "Tests that need one of them will say so and be skipped." >&2
fi
# What the tests take from npm, as the lock file pins it; once, and again when that changes.
npm_folder=$(dirname "$0")/npm
if command -v npm >/dev/null 2>&1 &&
        ! cmp -s "$npm_folder/package-lock.json" "$npm_folder/node_modules/.fetched"; then
    echo "fetching what the tests take from npm"
    if npm ci --prefix "$npm_folder" --ignore-scripts --no-audit --no-fund --loglevel=error; then
        cp "$npm_folder/package-lock.json" "$npm_folder/node_modules/.fetched"
    else
        echo "npm could not fetch $npm_folder/package-lock.json" >&2
        [ -z "${CI:-}" ] || exit 1
    fi
fi
