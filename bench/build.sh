#!/bin/sh
# bench/build.sh: build the bench and the peers that can be built here; run by ./build.sh bench and bench-relay. CC is heeded.
set -e
cd "$(dirname "$0")"
warn="-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow"
for f in load floor; do ${CC:-cc} $warn -O2 -o $f $f.c; done
# A peer that cannot be built is not there; the bench says so.
rm -f microhttpd http relay sqlite
${CC:-cc} $warn -O2 -o microhttpd microhttpd.c -lmicrohttpd 2>/dev/null || rm -f microhttpd
${CC:-cc} $warn -O2 -pthread -I.. -o sqlite sqlite.c -lsqlite3 2>/dev/null || rm -f sqlite
for f in http relay; do ! command -v go >/dev/null || GO111MODULE=off go build -o $f $f.go || rm -f $f; done
