/* tests/accept.h - what keeps a server from accepting. */

#if defined(__linux__)
#if __has_include(<linux/seccomp.h>)
#include <linux/filter.h>
#include <linux/seccomp.h>

/* Run a program in a sandbox in which accept4 fails with this code. */
static int sandboxed(int code, char **argv)
{
    struct sock_filter steps[] = {
        { BPF_LD | BPF_W | BPF_ABS, 0, 0, 0 },      /* the number of the call */
#ifdef SYS_socketcall      /* i386: the C library accepts by this one, whose first argument tells which call is meant */
        { BPF_JMP | BPF_JEQ | BPF_K, 0, 2, SYS_socketcall },
        { BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, args) },
        { BPF_JMP | BPF_JEQ | BPF_K, 1, 2, 18 },
#endif
        { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_accept4 },
        { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | (uint32_t)code },
        { BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW },
    };
    struct sock_fprog filter = { COUNT(steps), steps };
    if ((prctl)(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 77;
    if ((prctl)(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0) != 0) return 77;
    (execv)(argv[0], argv);
    return 126;
}
#else      /* musl-gcc finds none of the kernel's headers */
static int sandboxed(int code, char **argv) { return argv && code ? 77 : 126; }
#endif

/* A server that can serve nobody says why, and ends, instead of "listening". From `ulimit -n` 4 on
   each of them either says so, or serves. */
static void test_cannot_accept(void)
{
    static const char *const programs[] = {
        "../server --ip 127.0.0.1 --port %d", "../examples/codes/codes server --uuid-port 0 --text-port %d --log " MESSAGES,
        "../examples/gate/gate server --port %d --token-file " TOKEN_FILE, "../examples/relay/relay server --workers 1 --port %d",
        "../examples/fleet/fleet server --tcp-port 0 --rest-port %d",
    };
    static const struct { const char *before; const char *says; } rows[] = {
        { "ulimit -n 8; exec", "ulimit -n" },
        { "../test --child sandboxed 1", "a sandbox forbids" },
        { "../test --child sandboxed 38", "a sandbox forbids" },
        { "../test --child sandboxed 13", "a sandbox forbids" },
        { "ulimit -n 4; exec", "" }, { "ulimit -n 5; exec", "" }, { "ulimit -n 6; exec", "" },
        { "ulimit -n 7; exec", "" },
        { "ulimit -n 9; exec", "" }, { "ulimit -n 10; exec", "" }, { "ulimit -n 11; exec", "" },
        { "ulimit -n 12; exec", "" },
        { "ulimit -n 13; exec", "" }, { "ulimit -n 14; exec", "" }, { "ulimit -n 16; exec", "" },
        { "ulimit -n 20; exec", "" },
    };
    if (emulator()) {
        skip(topic, "an emulator needs more, and can't be in such a sandbox");
        return;
    }
    for (size_t i = 0; i < COUNT(programs) * COUNT(rows); i++) {
        const char *before = rows[i / COUNT(programs)].before,
                   *says = rows[i / COUNT(programs)].says;
        char command[128], line[256];
        process p;
        int port = free_port(), status = -1;
        snprintf(command, sizeof command, programs[i % COUNT(programs)], port);
        snprintf(line, sizeof line, "%s %s", before, command);
        if (!START(&p, "/bin/sh", "-c", line)) continue;
        for (int64_t until = ka_now_ms() + PATIENCE_MS; status < 0 && ka_now_ms() < until;
             status = process_wait(&p, 5)) {
            static wire w;
            char byte;
            if (*says || !strstr(output(&p, "out"), "o") ||
                wire_try(&w, "127.0.0.1", port) != KA_OK)
                continue;
            bool relay = strstr(command, "relay") != NULL, gate = strstr(command, "gate") != NULL;
            wire_text(&w, relay  ? "message x\n"
                          : gate ? "{}"
                                 : "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            bool served = ka__sock_wait(w.sock, KA__IN, 3000) == KA_OK &&
                          ka__sock_recv(w.sock, &byte, 1) == 1;
            wire_close(&w);
            CHECK(served, "%s listens, and serves nobody", line);
            break;
        }
        if (status == 77) skip(topic, "no seccomp here");
        else if (*says || status >= 0)
            CHECK(status == 1 && strstr(output(&p, "err"), *says ? says : "ulimit -n"),
                  "%s: status %d, %s", line, status, output(&p, "err"));
        process_end(&p);
    }
    (void)remove(MESSAGES);
    gate_remove();
}
#else
static int sandboxed(int code, char **argv) { return code && argv ? 77 : 0; }
static void test_cannot_accept(void) { skip("cannot accept", "this needs Linux"); }
#endif

/* It comes later: the parent is told, once, and when it is over, newcomers are served. */
static void test_accept_refused(void)
{
#if defined(__linux__)
    ka_event ev;
    ka_server *s;
    static wire w;
    char body[64];
    if (!CHECK(ka_server_start(&s, 1) == KA_OK && ka_listen(s, "127.0.0.1", 0) == 0 &&
                   ka_wait(s, &ev, PATIENCE_MS) == KA_OK && !ev.error,
               "starts"))
        return;
    int port = ev.port;
    accept_refused = EPERM;
    int64_t start = ka_now_ms();
    wire_open(&w, port);
    wire_text(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_OK && ev.kind == KA_LISTENING && ev.listener == 0 &&
              ev.error == KA_EPERM && ev.os_error == EPERM,
          "the parent is told: kind %d, error %d, %d", ev.kind, ev.error, ev.os_error);
    CHECK(ka_now_ms() - start >= (KA__ACCEPT_TRIES - 2) * KA__ACCEPT_AGAIN_MS, "after %d ms",
          (int)(ka_now_ms() - start));
    CHECK(ka_wait(s, &ev, 1500) == KA_ETIME, "once");
    accept_refused = 0;
    CHECK(ka_wait(s, &ev, PATIENCE_MS) == KA_OK && ev.kind == KA_REQUEST &&
              ka_reply(s, &ev, 200, NULL, "x", 1) == KA_OK,
          "it is over");
    CHECK(ka_wait(s, &ev, 0) == KA_ETIME && wire_answer(&w, body, sizeof body, NULL, false) == 200,
          "and who waited is served");
    wire_close(&w);
    ka_server_free(s);
#endif
}

static const subject accept_topics[] = {
    { "cannot accept", test_cannot_accept }, { "accept refused", test_accept_refused },
};
