/* test - keyauth.h and ext/ by their units, by a server in this process, and by the real programs.
     ./build.sh test      builds all and runs all topics
     ./test NAME...       runs the topics that have a NAME in their names
     ./test =NAME...      runs the topics of these names
   A failure says where, why, what came and what was wanted, and the run goes on. The last line is the
   count, and the exit status the verdict: 0, all passed. tests/README.md says what is where. */

/* Odd limits and short times, to see that they are honoured; an allocator that counts
   and can fail. */
#define KA_MAX_HEAD 2000
#define KA_MAX_BODY 1500
#define KA_MAX_CHUNK_LINE 64
#define KA_MAX_UNSENT 70000
#define KA_REQUEST_MS 2500
#define KA_IDLE_MS 3500
#define KA_ANSWER_MS 6000
#define KA_STALL_MS 1500
#define KA_LINGER_MS 1000
#define KA_DRAIN_MS 4000
#define KA_ATTEMPT_MS 5000
#define KA_REDIS_BYTES 100000
#define KA_JOURNAL_AHEAD 1024
#define KA_MAILBOX (1u << 18)
#define KA_REDIS_MS 1500
#define KA_REDIS_RETRY_MS 20
#define KA_REDIS_WAITING 40
#define KA_REDIS_INFO 1500
#define KA_MALLOC(n) test_realloc(NULL, n)
#define KA_REALLOC(p, n) test_realloc(p, n)
#define KA_FREE(p) test_free(p)
#include <stddef.h>
static void *test_realloc(void *p, size_t n);
static void test_free(void *p);
#include "tests/faults.h"
#define KEYAUTH_IMPLEMENTATION
#include "keyauth.h"
#include "ext/input.h"
#include "ext/lookup.h"
#include "ext/cli.h"
#include "ext/file.h"
#include "ext/framing.h"
#include "ext/sse.h"
#include "ext/timer.h"
#include "ext/peers.h"
#include "ext/service.h"
#include "ext/limit.h"
#include "ext/process.h"
#include "ext/redis.h"
#include "ext/route.h"
#include "ext/site.h"
#include "ext/json.h"
#include "ext/uuid.h"
#include "ext/log.h"
#include "ext/access.h"
#include "ext/metrics.h"
#include "ext/journal.h"
#include <stdarg.h>
#include "tests/frame.h"
#include "tests/platform.h"
#include "tests/bytes.h"
#include "tests/ext_uuid.h"
#include "tests/ext_cli.h"
#include "tests/text.h"
#include "tests/ext_json.h"
#include "tests/mailbox.h"
#include "tests/keyring.h"
#include "tests/ext_journal.h"
#include "tests/ext_file.h"
#include "tests/ext_log.h"
#include "tests/fixtures.h"
#include "tests/http.h"
#include "tests/worker.h"
#include "tests/secrets.h"
#include "tests/ext_framing.h"
#include "tests/ext_resp.h"
#include "tests/cross_site.h"
#include "tests/ext_sse.h"
#include "tests/connect.h"
#include "tests/ext_peers.h"
#include "tests/ext_timer.h"
#include "tests/play.h"
#include "tests/ext_redis_plays.h"
#include "tests/ext_redis.h"
#include "tests/client.h"
#include "tests/processes.h"
#include "tests/ext_process.h"
#include "tests/ext_input.h"
#include "tests/kill.h"
#include "tests/programs.h"
#include "tests/addresses.h"
#include "tests/ext_limit.h"
#include "tests/ext_access.h"
#include "tests/ext_metrics.h"
#include "tests/ext_service.h"
#include "tests/ext_route.h"
#include "tests/server.h"
#include "tests/descriptors.h"
#include "tests/programs_journal.h"
#include "examples/codes/tests.h"
#include "examples/gate/tests.h"
#include "examples/relay/tests.h"
#include "tests/signals.h"
#include "tests/accept.h"
#include "tests/words.h"
#include "tests/faults_stores.h"
#include "tests/faults_run.h"
#include "tests/run.h"

/* Longest first, since what is begun last ends last. PROGRAMS: other programs are started, whose
   waits are the same on each processor; an emulator is spared them. */
static const struct { const subject *topics; size_t n; bool programs;
} tables[] = {
#define TOPICS(name) { name##_topics, COUNT(name##_topics), false }
#define PROGRAMS(name) { name##_topics, COUNT(name##_topics), true }
    TOPICS(ext_redis_plays),
    TOPICS(ext_redis),
    PROGRAMS(words),
    PROGRAMS(programs),
    PROGRAMS(signals),
    PROGRAMS(accept),
    TOPICS(connect),
    TOPICS(worker),
    PROGRAMS(relay),
    PROGRAMS(gate),
    PROGRAMS(codes),
    PROGRAMS(programs_journal),
    PROGRAMS(kill),
    PROGRAMS(ext_service),
    PROGRAMS(addresses_kill),
    PROGRAMS(server),
    PROGRAMS(descriptors),
    TOPICS(faults_run),
    TOPICS(ext_sse),
    TOPICS(ext_framing),
    TOPICS(ext_resp),
    TOPICS(http),
    TOPICS(ext_peers),
    TOPICS(ext_limit),
    TOPICS(ext_access),
    TOPICS(ext_metrics),
    TOPICS(ext_timer),
    TOPICS(ext_process),
    TOPICS(ext_input),
    TOPICS(client),
    TOPICS(cross_site),
    TOPICS(secrets),
    TOPICS(ext_journal),
    TOPICS(ext_file),
    TOPICS(ext_log),
    TOPICS(keyring),
    TOPICS(mailbox),
    TOPICS(platform),
    TOPICS(bytes),
    TOPICS(text),
    TOPICS(ext_json),
    TOPICS(ext_cli),
    TOPICS(ext_uuid),
    TOPICS(ext_route),
    TOPICS(addresses),
};

int main(int argc, char **argv)
{
    const char *asked = getenv("KA_TEST_JOBS");
    int n = asked ? atoi(asked) : JOBS;
    for (size_t i = 0; i < COUNT(tables); i++) {
        topic = tables[i].topics[0].name;
        if (tables[i].programs && emulator_lacks("qemu", "and those with it: they start programs"))
            continue;
        for (size_t k = 0; k < tables[i].n; k++) tests[tests_n++] = &tables[i].topics[k];
    }
    if (argc > 2 && strcmp(argv[1], "--child") == 0) return child_main(argc, argv);
    if (ka_network_start() < 0) return 2;
    if (!opens("server" EXE, "rb") || !opens(".test-writable", "wb")) {
        fprintf(stderr, "test: run it in a folder with server and client in which it can write, "
                        "by ./build.sh test\n");
        return 2;
    }
    (void)remove(".test-writable");
    run_number = process_number();
    if (argc < 2 && n > 1) run_side_by_side(n < MOST_JOBS ? n : MOST_JOBS);
    else if (argc < 2) run_in_turn("");
    for (int i = 1; i < argc; i++) {
        if (run_in_turn(argv[i])) continue;
        fprintf(stderr, "test: there is no test \"%s\": ./test prints all names\n", argv[i]);
        return 2;
    }
    printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
    return failed > 0;
}
