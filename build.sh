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
# ./build.sh hostile  what bad clients do to it, and whether a good one is served meanwhile (bench/README.md)
# ./build.sh fleet-demo    Redis, two instances of examples/fleet, HAProxy and 20 devices; Ctrl+C ends them
# ./build.sh fuzz [SECONDS] [TARGET...]   fuzz it (fuzz/README.md); 0 seconds: only run what is kept
# ./build.sh every [MORE [NAME...]]       every short text, by the parsers and by a second reader (fuzz/README.md)
# ./build.sh explore [BOUND] [NAME...]    every interleaving of the threads (tests/README.md)
# ./build.sh crash [UNITS] [NAME...]      every crash of the machine while the files are written (tests/README.md)
# ./build.sh dist     keyauth.tar.gz: a folder of the server and one of the client
# ./build.sh release  of the last commit: keyauth-VERSION.tar.gz, .zip and .sha256; the same bytes each time
# ./build.sh clean    remove all that was built
# CC, CFLAGS and LDFLAGS are heeded: CC=clang CFLAGS="-g -fsanitize=address" ./build.sh test
set -e
cd "$(dirname "$0")"
warn="-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes"
harden="-fstack-protector-strong -fPIE" link=
# macOS: ld has no -z, and PIE is the default. A PLT is for lazy binding, which -z now does away with.
[ "$(uname)" != Linux ] || { harden="$harden -fno-plt" link="-pie -Wl,-z,relro,-z,now"; }
examples="examples/quickstart examples/chat examples/codes/codes examples/gate/gate examples/relay/relay examples/fleet/fleet"
# In CFLAGS' place: sanitizers and -O0 do not go with _FORTIFY_SOURCE. Nothing unwinds in C: without tables for that
# the programs are a tenth smaller.
optimise="-O2 -fno-asynchronous-unwind-tables -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2"

fail() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

compiles() { # COMPILER HOW-TO-GET-IT: it is there, and so are C11's atomics (tcc has none) and the C library's headers
    printf '#include <stdatomic.h>\n#include <stdlib.h>\n' | $1 -E - >/dev/null 2>&1 || fail "$1 cannot compile this. $2"
}

build() { # each program that is here, as many at once as there are processors
    compiles "${CC:-cc}" "It takes gcc or clang, with C11 atomics, and the C library's headers:
  Debian, Ubuntu   apt install gcc libc6-dev
  Fedora           dnf install gcc
  Alpine           apk add gcc musl-dev
  macOS            xcode-select --install
  another one      CC=clang ./build.sh"
    for f; do [ ! -f "$f.c" ] || echo "$f"; done | xargs -P "$(getconf _NPROCESSORS_ONLN)" -I{} \
        ${CC:-cc} $warn $harden ${CFLAGS:-$optimise} -I. -pthread -o {} {}.c ${LDFLAGS-$link} || exit 1
}

need() {
    for f; do [ -f "$f.c" ] || fail "'$word' needs $f.c, which is not in this folder"; done
}

word=${1:-build}
case "$word" in
build)
    build server client ;;
run)
    need server client
    build server client
    sh -c 'echo $$; exec ./server' | {
        read -r pid
        read -r line || exit 1      # the server has said why it cannot listen
        trap 'kill $pid' EXIT
        echo "$line"
        ./client 127.0.0.2 9999
    } ;;
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
    compiles "${MINGW:-x86_64-w64-mingw32-gcc}" "It takes MinGW-w64's gcc: apt install gcc-mingw-w64-x86-64, dnf install mingw64-gcc"
    for f in server client test $examples examples/gate/gate_test; do
        [ ! -f $f.c ] || ${MINGW:-x86_64-w64-mingw32-gcc} $warn ${CFLAGS:--O2} -fstack-protector-strong -static -I. -o $f.exe $f.c -lws2_32 -lbcrypt -liphlpapi
    done ;;
bench)
    need server bench/load
    build server client
    shift
    sh bench/build.sh && exec python3 bench/bench.py "$@" ;;
bench-relay)
    need examples/relay/relay bench/load
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
fuzz)
    need fuzz/fuzz
    shift
    seconds=${1:-60}
    [ $# = 0 ] || shift
    exec sh fuzz/run "$seconds" "$@" ;;
every)
    need fuzz/fuzz
    shift
    ${CC:-cc} $warn ${CFLAGS:--O2 -fsanitize=undefined -fsanitize-undefined-trap-on-error} \
        -DFUZZ_EVERY -o fuzz/every fuzz/fuzz.c
    exec fuzz/every "$@" ;;
explore)
    shift
    exec sh tests/explore/run "$@" ;;
crash)
    need tests/crash/crash
    build tests/crash/crash
    shift
    exec tests/crash/crash "$@" ;;
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
        cp -R $f.c keyauth.h ext build.sh build.bat "$tmp/keyauth/$f"
        cp deploy/dist/$f.md "$tmp/keyauth/$f/README.md"
    done
    tar -czf keyauth.tar.gz -C "$tmp" keyauth
    rm -r "$tmp"
    echo keyauth.tar.gz ;;
release)
    [ -e .git ] && command -v git >/dev/null || fail "a release is made of a commit: it takes git, and a clone of the repository"
    changed=$(git status --porcelain) || exit 1
    [ -z "$changed" ] || fail "a release is made of a commit, and this is not committed:
$changed"
    name=keyauth-$(sed -n 's/^#define KA_VERSION "\(.*\)"/\1/p' keyauth.h)
    # No bytes of this machine: not its line ends, its umask or its time zone, and no time in gzip's header
    archive="git -c core.autocrlf=false -c tar.umask=0022 archive --prefix=$name/"
    $archive -o $name.tar HEAD
    gzip -9nf $name.tar
    TZ=UTC $archive -o $name.zip HEAD
    sums=sha256sum; command -v sha256sum >/dev/null || sums="shasum -a 256"      # macOS
    $sums $name.tar.gz $name.zip | tee $name.sha256 ;;
clean)
    rm -f server client test server.exe client.exe test.exe keyauth.tar.gz keyauth-*.tar.gz keyauth-*.zip keyauth-*.sha256
    for f in $examples examples/gate/gate_test; do rm -f $f $f.exe; done
    rm -rf bench/load bench/__pycache__ bench/hostile bench/floor bench/microhttpd bench/http bench/relay bench/sqlite
    rm -f fuzz/fuzz fuzz/replay fuzz/every tests/explore/explore-* tests/explore/*.o tests/crash/crash
    rm -rf .test-* ;;      # what an interrupted ./test leaves
*)
    sed -n '/^set -e/q; s/^# //p' "$0" >&2
    exit 2 ;;
esac
