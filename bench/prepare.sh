#!/bin/sh
# The peers that the benches compare with: installed from Debian's packages where we may, else said.
set -eu
missing=
command -v haproxy >/dev/null || missing="$missing haproxy"
[ -e /usr/lib/nginx/modules/ngx_stream_module.so ] || missing="$missing nginx-light libnginx-mod-stream"
command -v keepalived >/dev/null || missing="$missing keepalived"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "to compare with every peer, install:$missing" >&2
    exit 0
fi
echo "installing$missing" >&2
apt-get update -qq
# a policy that starts nothing: the benches start their own
DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
