/* tests/run.h - runs the topics: each in a folder of its own, and JOBS of them at once. */

enum { MOST_TOPICS = 512 };
static const subject *tests[MOST_TOPICS];
static int tests_n;
/* The PID of the process that began it: many of them may run in this folder. */
static long run_number;

/* The name of topic i's folder, or of its log. */
static const char *job_name(int i, const char *kind)
{
    static char name[64];
    snprintf(name, sizeof name, ".test-%ld-job-%d%s", run_number, i, kind);
    return name;
}

static void run_here(int i)
{
    int before = passed, broken = failed;
    int64_t start = ka_now_ms();
    topic = tests[i]->name;
    /* It is there already if the topic runs once more, and had left files. */
    (void)place_make(job_name(i, ""));
    if (!place_enter(job_name(i, ""))) abort();
    tests[i]->run();
    processes_end();
    if (!place_enter("..")) abort();
    CHECK(place_remove(job_name(i, "")), "it left files in %s", job_name(i, ""));
    printf("%-24s %5d passed%s, %d ms\n", topic, passed - before,
           failed > broken ? ", SOME FAILED" : "", (int)(ka_now_ms() - start));
    if (failed > broken) printf("    that topic alone: ./test \"=%s\"\n", topic);
    fflush(stdout);
}

/* All that have this in their names, or the one named NAME if this is =NAME, in this process.
   False: there is none. */
static bool run_in_turn(const char *name)
{
    bool any = false, alone = *name == '=';
    name += alone;
    ports_take();
    for (int i = 0; i < tests_n; i++) {
        if (alone ? strcmp(tests[i]->name, name) != 0 : !strstr(tests[i]->name, name)) continue;
        any = true;
        run_here(i);
    }
    return any;
}

/* ---- side by side: most topics wait most of the time. Not on Windows: Wine loses the end of a
   connection then ---- */

#if defined(_WIN32)
enum { JOBS = 1, MOST_JOBS = 1 };
static void run_side_by_side(int n) { (void)n; }
#else
/* A virtual machine may stand still for seconds, and an emulator is slow. Then times are over that
   a topic did not have: if it failed, it runs once more. STALL_MS: so much later than it should,
   the process that waits for the others wakes. */
enum { JOBS = 12, MOST_JOBS = 32, STALL_MS = 500 };
static struct { pid_t pid; int topic, ports, stalled_ms; } jobs[MOST_JOBS];

/* In a process of its own, whose output is a log: the last line tells what has come of it. */
static int job_run(int i, int ports)
{
    ports_from = ports;
    run_here(i);
    printf("%d %d %d\n", passed, failed, skipped);
    return failed > 0;
}

/* Start topic i at a place. */
static void job_start(int place, int i)
{
    fflush(stdout);
    jobs[place].topic = i;
    jobs[place].stalled_ms = 0;
    jobs[place].pid = fork();
    if (jobs[place].pid < 0) abort();
    if (jobs[place].pid != 0) return;
    int out = open(job_name(i, ".log"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0) abort();
    for (int fd = 3; fd < 200; fd++) close(fd);
    passed = failed = skipped = 0;
    exit(job_run(i, jobs[place].ports)); /* NOLINT(concurrency-mt-unsafe): there is one thread */
}

/* Wait until one of the n has ended: its place, and its exit status. */
static int job_wait(int n, int *status)
{
    int code, place = 0;
    pid_t pid;
    for (int64_t before = ka_now_ms(), now; (pid = waitpid(-1, &code, WNOHANG)) == 0;
         before = now) {
        ka_sleep_ms(10);
        now = ka_now_ms();
        for (int i = 0; i < n && now - before > STALL_MS; i++)
            jobs[i].stalled_ms += (int)(now - before);
    }
    while (place < n && jobs[place].pid != pid) place++;
    if (pid < 0 || place == n) abort();
    *status = WIFEXITED(code) ? WEXITSTATUS(code) : 128 + WTERMSIG(code);
    return place;
}

/* Show what topic i has printed, and count what its last line tells. One that ended otherwise is a
   failure. */
static void job_show(int i, int status)
{
    static char text[4 << 20];
    int done[3];
    FILE *f = fopen(job_name(i, ".log"), "rb");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0, end = n ? n - 1 : 0;
    if (f) fclose(f);
    (void)remove(job_name(i, ".log"));
    topic = tests[i]->name;
    text[n] = 0;
    while (end > 0 && text[end - 1] != '\n') end--;
    /* NOLINTNEXTLINE(cert-err34-c): the text is ours */
    bool told = sscanf(text + end, "%d %d %d", &done[0], &done[1], &done[2]) == 3;
    if (fwrite(text, 1, told ? end : n, stdout) != (told ? end : n)) abort();
    for (int k = 0; told && k < 3; k++)
        *(k == 0 ? &passed : k == 1 ? &failed : &skipped) += done[k];
    if (status != (told && done[1] > 0) || !told)
        CHECK(false, "its process ended with status %d", status);
    fflush(stdout);
}

static void run_side_by_side(int n)
{
    static struct { bool ended, again; int status; } of[MOST_TOPICS];
    int begun = 0, shown = 0, status;
    for (int place = 0; place < n && begun < tests_n; place++) {
        ports_take();
        jobs[place].ports = ports_from;
        job_start(place, begun++);
    }
    while (shown < tests_n) {
        int place = job_wait(n, &status), i = jobs[place].topic;
        if (status != 0 && !of[i].again && (jobs[place].stalled_ms || emulator())) {
            printf("%s failed; %s stood still for %d ms: once more\n", tests[i]->name,
                   emulator() ? emulator() : "the machine", jobs[place].stalled_ms);
            of[i].again = true;
            job_start(place, i);
            continue;
        }
        of[i].ended = true;
        of[i].status = status;
        for (; shown < begun && of[shown].ended; shown++) job_show(shown, of[shown].status);
        if (begun < tests_n) job_start(place, begun++);
    }
}
#endif
