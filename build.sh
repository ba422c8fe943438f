#!/bin/sh
# ./build.sh          build server and client
# ./build.sh run      and show the handshake
# ./build.sh examples build each of examples/ in its folder: codes, fleet, gate, relay, chat.c and quickstart.c
# ./build.sh test     build them all, and run the tests
# ./build.sh coverage and say which lines of keyauth.h and ext/ they don't run (gcc, gcov)
# ./build.sh win      build server.exe, client.exe and test.exe with MinGW
# ./build.sh bench    measure it beside other servers (bench/README.md)
# ./build.sh bench-relay   and the relay beside one in Go (bench/README.md)
# ./build.sh bench-fleet   and ten thousand devices on two instances of examples/fleet (bench/README.md)
# ./build.sh bench-redis   and keys in Redis beside keys in memory (bench/README.md)
# ./build.sh hostile  what bad clients do to it, and whether a good one is served meanwhile (bench/README.md)
# ./build.sh fleet-demo    Redis, two instances of examples/fleet, HAProxy and 20 devices; Ctrl+C ends them
# ./build.sh fuzz [SECONDS] [TARGET...]   fuzz it (fuzz/README.md); 0 seconds: only run what is kept
# ./build.sh dist     keyauth.tar.gz: a folder of the server and one of the client
# ./build.sh clean    remove all that was built
# CC, CFLAGS and LDFLAGS are heeded: CC=clang CFLAGS="-g -fsanitize=address" ./build.sh test
set -e
cd "$(dirname "$0")"
warn="-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes"
harden="-fstack-protector-strong -fPIE" link=
[ "$(uname)" != Linux ] || link="-pie -Wl,-z,relro,-z,now"      # macOS: ld has no -z, and PIE is the default
examples="examples/quickstart examples/chat examples/codes/codes examples/gate/gate examples/relay/relay examples/fleet/fleet"
# In CFLAGS' place: sanitizers and -O0 do not go with _FORTIFY_SOURCE. Nothing unwinds in C: without tables for that
# the programs are a tenth smaller.
optimise="-O2 -fno-asynchronous-unwind-tables -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"

build() { # each program that is here, all at once
    pids=
    for f; do
        [ -f "$f.c" ] || continue
        ${CC:-cc} $warn $harden ${CFLAGS:-$optimise} -I. -pthread -o "$f" "$f.c" ${LDFLAGS-$link} & pids="$pids $!"
    done
    for pid in $pids; do wait "$pid"; done
}

need() {
    for f; do [ -f "$f.c" ] || { echo "build.sh: '$word' needs $f.c, which is not in this folder" >&2; exit 1; }; done
}

word=${1:-build}
case "$word" in
build)
    build server client ;;
run)
    need server client
    build server client
    ./server & pid=$!
    trap 'kill $pid 2>/dev/null; wait $pid' EXIT
    sleep 1; kill -0 $pid 2>/dev/null || exit 1      # it has said why it could not listen
    ./client 127.0.0.2 9999 ;;
examples)
    need examples/codes/codes
    build $examples ;;
test)
    need server client test
    echo "build.sh: a minute to build and test, on two cores"
    build server client test $examples examples/gate/gate_test
    [ ! -f examples/gate/gate_test ] || examples/gate/gate_test
    ./test ;;
coverage)
    need server client test
    exec .ci/coverage ;;
win)
    for f in server client test $examples examples/gate/gate_test; do
        [ ! -f $f.c ] || ${MINGW:-x86_64-w64-mingw32-gcc} $warn ${CFLAGS:--O2} -fstack-protector-strong -static -I. -o $f.exe $f.c -lws2_32 -lbcrypt -liphlpapi
    done ;;
bench)
    need server bench/bench
    build server
    shift
    sh bench/build.sh && exec bench/bench "$@" ;;
bench-relay)
    need examples/relay/relay bench/bench
    build examples/relay/relay
    shift
    sh bench/build.sh && exec python3 bench/relay.py "$@" ;;
fleet-demo)
    need examples/fleet/fleet
    build examples/fleet/fleet
    exec examples/fleet/demo ;;
bench-fleet)
    need examples/fleet/fleet
    build examples/fleet/fleet
    shift
    exec python3 bench/fleet.py "$@" ;;
bench-redis)
    need server bench/bench
    build server
    shift
    exec python3 bench/redis.py "$@" ;;
fuzz)
    need fuzz/fuzz
    shift
    seconds=${1:-60}
    [ $# = 0 ] || shift
    exec sh fuzz/run "$seconds" "$@" ;;
hostile)
    need server bench/hostile
    build server bench/hostile
    shift
    exec bench/hostile "$@" ;;
dist)
    need server client
    tmp=$(mktemp -d)
    for f in server client; do
        mkdir -p "$tmp/keyauth/$f"
        cp -R $f.c keyauth.h ext build.sh build.bat README.md "$tmp/keyauth/$f"
    done
    tar -czf keyauth.tar.gz -C "$tmp" keyauth
    rm -r "$tmp"
    echo keyauth.tar.gz ;;
clean)
    rm -f server client test server.exe client.exe test.exe keyauth.tar.gz
    for f in $examples examples/gate/gate_test; do rm -f $f $f.exe; done
    rm -f bench/bench bench/hostile bench/floor bench/microhttpd bench/http bench/relay bench/sqlite
    rm -f fuzz/fuzz fuzz/replay
    rm -rf .test-* ;;      # what an interrupted ./test leaves
*)
    sed -n '2,16s/^# //p' "$0" >&2
    exit 2 ;;
esac
