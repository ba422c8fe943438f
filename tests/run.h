/* tests/run.h - runs the topics: side by side, or one after the other. */

enum { MOST_TOPICS = 512 };
static const subject *tests[MOST_TOPICS];
static int tests_n;

static void run_here(const subject *t)
{
    int before = passed, broken = failed;
    int64_t start = ka_now_ms();
    topic = t->name;
    t->run();
    printf("%-24s %5d passed%s, %d ms\n", topic, passed - before, failed > broken ? ", SOME FAILED" : "", (int)(ka_now_ms() - start));
    if (failed > broken) printf("    that topic alone: ./test \"%s\"\n", topic);
    fflush(stdout);
}

#if !defined(_WIN32)
/* Most topics wait most of the time: so JOBS of them run at once, each in a process of its own and in a folder of its own,
   where the programs and folders that are here are linked. What a topic prints goes to a file, and is shown when its turn
   has come. */
enum { JOBS = 8, MOST_JOBS = 32 };

static struct { pid_t pid; int ports; } jobs[MOST_JOBS];

typedef struct { bool ended; int status, passed, failed, skipped; } outcome;      /* shared with the processes */

static long jobs_of;      /* the process that runs them */

static const char *job_file(int i, const char *kind)
{
    static char name[64];
    snprintf(name, sizeof name, ".test-%ld-job-%d%s", jobs_of, i, kind);
    return name;
}

/* Link each program and folder that is here into a job's folder, or remove that. */
static void job_links(const char *folder, bool make)
{
    char at[400], to[400];
    DIR *d = opendir(".");
    for (struct dirent *e; d && (e = readdir(d)) != NULL; ) {
        if (*e->d_name == '.' || (access)(e->d_name, X_OK) != 0) continue;      /* .: traces of a test */
        snprintf(at, sizeof at, "%s/%s", folder, e->d_name);
        snprintf(to, sizeof to, "../%s", e->d_name);
        if (make && symlink(to, at) != 0) abort();
        if (!make) (void)unlink(at);
    }
    if (d) closedir(d);
}

/* In the new process: run topic i. */
static void job_run(int i, outcome *o)
{
    int out = open(job_file(i, ".log"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (out < 0 || mkdir(job_file(i, ""), 0700) != 0) abort();
    job_links(job_file(i, ""), true);
    if (dup2(out, 1) < 0 || dup2(out, 2) < 0 || chdir(job_file(i, "")) != 0) abort();
    for (int fd = 3; fd < 200; fd++) close(fd);
    run_here(tests[i]);
    processes_end();
    *o = (outcome){ .passed = passed, .failed = failed, .skipped = skipped };
}

/* Show what topic i has printed, and count what it has told. A process that ended otherwise is a failure. */
static void job_show(int i, const outcome *o)
{
    char piece[4096];
    FILE *f = fopen(job_file(i, ".log"), "rb");
    for (size_t n; f && (n = fread(piece, 1, sizeof piece, f)) > 0; )
        if (fwrite(piece, 1, n, stdout) != n) abort();
    if (f) fclose(f);
    (void)remove(job_file(i, ".log"));
    topic = tests[i]->name;
    passed += o->passed;
    failed += o->failed;
    skipped += o->skipped;
    if (o->status != 0) CHECK(false, "its process ended with status %d", o->status);
    job_links(job_file(i, ""), false);
    if (rmdir(job_file(i, "")) != 0) CHECK(false, "it left files in %s", job_file(i, ""));
    fflush(stdout);
}

/* Wait until one of them ends: its place. */
static int job_wait(int n, outcome *of, const int *runs)
{
    int status;
    pid_t pid = wait(&status);
    for (int place = 0; place < n; place++) {
        if (jobs[place].pid != pid) continue;
        of[runs[place]].ended = true;
        of[runs[place]].status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        jobs[place].pid = 0;
        return place;
    }
    abort();
}

/* True in the program that was started; false in each process that has run a topic, and is to end now. */
static bool run_side_by_side(int n)
{
    int runs[MOST_JOBS], shown = 0;
    outcome *of = (mmap)(NULL, sizeof(outcome) * (size_t)tests_n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (of == MAP_FAILED || !of) abort();
    jobs_of = (long)getpid();
    for (int place = 0; place < n; place++) {
        ports_take();
        jobs[place].ports = ports_from;
    }
    for (int i = 0, busy = 0; shown < tests_n; ) {
        bool more = i < tests_n;
        int place = more && busy < n ? busy++ : job_wait(n, of, runs);
        for (; shown < i && of[shown].ended; shown++) job_show(shown, &of[shown]);
        if (!more) continue;
        runs[place] = i;
        ports_from = jobs[place].ports;
        fflush(stdout);
        jobs[place].pid = fork();
        if (jobs[place].pid < 0) abort();
        if (jobs[place].pid == 0) {
            passed = failed = skipped = 0;
            job_run(i, &of[i]);
            return false;
        }
        i++;
    }
    return true;
}
#else
enum { JOBS = 1, MOST_JOBS = 1 };
static bool run_side_by_side(int n) { return n > 0; }
#endif
