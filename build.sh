#!/bin/sh
# ./build.sh          build server and client
# ./build.sh run      and show the handshake
# ./build.sh test     and run the tests
# ./build.sh win      build server.exe, client.exe and test.exe with MinGW
# ./build.sh dist     keyauth.tar.gz: a folder of the server and one of the client
# ./build.sh clean    remove all that was built
# CC and CFLAGS are heeded: CC=clang CFLAGS="-g -fsanitize=address" ./build.sh test
set -e
cd "$(dirname "$0")"
warn="-std=c11 -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Wstrict-prototypes"

build() {
    for f; do [ ! -f "$f.c" ] || ${CC:-cc} $warn ${CFLAGS:--O2} -I. -pthread -o "$f" "$f.c"; done
}

case "${1:-build}" in
build)
    build server client ;;
run)
    build server client
    ./server & pid=$!
    trap 'kill $pid 2>/dev/null; wait $pid' EXIT
    sleep 1 && kill -0 $pid      # it has said why, if it could not listen
    ./client 127.0.0.2 9999 ;;
test)
    build server client test examples/quickstart
    ./test ;;
win)
    for f in server client test; do
        ${MINGW:-x86_64-w64-mingw32-gcc} $warn -O2 -static -o $f.exe $f.c -lws2_32 -lbcrypt -liphlpapi
    done ;;
dist)
    rm -rf keyauth && mkdir -p keyauth/server keyauth/client
    for f in server client; do cp $f.c keyauth.h build.sh build.bat README.md keyauth/$f; done
    tar -czf keyauth.tar.gz keyauth && rm -rf keyauth
    echo keyauth.tar.gz ;;
clean)
    rm -f server client test *.exe keyauth.tar.gz examples/quickstart ;;
*)
    sed -n '2,8s/^# //p' "$0" >&2
    exit 2 ;;
esac
