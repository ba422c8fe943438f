/* tests/processes.h - other programs, and this one again as a child. */

/* A topic runs in a place of its own, a folder below the programs'. */
#ifdef _WIN32
#define EXE ".exe"
static long process_number(void) { return (long)GetCurrentProcessId(); }
static bool place_make(const char *path) { return (CreateDirectoryA)(path, NULL); }
static bool place_enter(const char *path) { return SetCurrentDirectoryA(path); }
static bool place_remove(const char *path) { return RemoveDirectoryA(path); }
#else
#define EXE ""
static long process_number(void) { return (long)getpid(); }
static bool place_make(const char *path) { return (mkdir)(path, 0700) == 0; }
static bool place_enter(const char *path) { return chdir(path) == 0; }
static bool place_remove(const char *path) { return rmdir(path) == 0; }
#endif
#define PROGRAM(name) "../" name EXE

/* A process of this test: its place in the pool, which outlives the function that started it, so
   that whatever still runs at the end can be killed. Its output is in
   .test-PID-PLACE.out and .err. */
typedef int process;

static struct {
    bool      running;
    long long pid;
#ifdef _WIN32
    HANDLE    handle;
#endif
} pool[256];

static int pool_n;

static const char *output_name(const process *p, const char *kind)
{
    static char name[2][64];
    static int turn;
    turn = !turn;
    snprintf(name[turn], sizeof name[turn], ".test-%ld-%d.%s", process_number(), *p, kind);
    return name[turn];
}

#ifdef _WIN32
static HANDLE output_open(const char *name)
{
    SECURITY_ATTRIBUTES inherit = { sizeof inherit, NULL, TRUE };
    return CreateFileA(name, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                       &inherit, CREATE_ALWAYS, 0, NULL);
}

static bool process_spawn(process *p, const char *const *argv, int max_files)
{
    char line[1024] = "";
    STARTUPINFOA start;
    PROCESS_INFORMATION info;
    (void)max_files;
    for (; *argv; argv++) snprintf(line + strlen(line), sizeof line - strlen(line), "%s ", *argv);
    memset(&start, 0, sizeof start);
    start.cb = sizeof start;
    start.dwFlags = STARTF_USESTDHANDLES;
    start.hStdOutput = output_open(output_name(p, "out"));
    start.hStdError = output_open(output_name(p, "err"));
    start.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    bool ok = false;
    /* Wine fails now and then on a busy machine. */
    for (int tries = 0; !ok && tries < 20; tries++) {
        if (tries) Sleep(100);
        ok = CreateProcessA(NULL, line, NULL, NULL, TRUE, on_wine() ? 0 : CREATE_NEW_PROCESS_GROUP,
                            NULL, NULL, &start, &info);
    }
    if (!ok) printf("CreateProcess: error %d\n", (int)GetLastError());
    CloseHandle(start.hStdOutput);
    CloseHandle(start.hStdError);
    if (!ok) return false;
    CloseHandle(info.hThread);
    pool[*p].handle = info.hProcess;
    pool[*p].pid = info.dwProcessId;
    return true;
}

/* The exit status, or -1 if it still runs after ms. */
static int process_wait(process *p, int ms)
{
    DWORD code;
    if (WaitForSingleObject(pool[*p].handle, (DWORD)ms) != WAIT_OBJECT_0) return -1;
    GetExitCodeProcess(pool[*p].handle, &code);
    CloseHandle(pool[*p].handle);
    pool[*p].running = false;
    return (int)code;
}

/* What this process and its children read from stdin: a file, or a pipe into which is said what it
   gives; NULL: what it was before. */
static HANDLE input_before, input_file, input_end;

static void input_from(const char *path)
{
    SECURITY_ATTRIBUTES inherit = { sizeof inherit, NULL, TRUE };
    if (path) {
        input_before = GetStdHandle(STD_INPUT_HANDLE);
        input_file =
            CreateFileA(path, GENERIC_READ, FILE_SHARE_READ, &inherit, OPEN_EXISTING, 0, NULL);
    } else CloseHandle(input_file);
    SetStdHandle(STD_INPUT_HANDLE, path ? input_file : input_before);
}

static bool input_pipe(void)
{
    SECURITY_ATTRIBUTES inherit = { sizeof inherit, NULL, TRUE };
    input_before = GetStdHandle(STD_INPUT_HANDLE);
    return CreatePipe(&input_file, &input_end, &inherit, 0) &&
           SetHandleInformation(input_end, HANDLE_FLAG_INHERIT, 0) &&
           SetStdHandle(STD_INPUT_HANDLE, input_file);
}

static bool input_say(const char *text)
{
    DWORD put;
    return WriteFile(input_end, text, (DWORD)strlen(text), &put, NULL) && put == strlen(text);
}

static void input_ends(void) { CloseHandle(input_end); }

static void process_kill(process *p) { TerminateProcess(pool[*p].handle, 137); }
enum { POLITE = false };      /* see on_wine */

static BOOL WINAPI ignore_interrupt(DWORD kind) { return kind == CTRL_C_EVENT; }

static bool process_interrupt(process *p)
{
    if (!on_wine()) return GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, (DWORD)pool[*p].pid);
    SetConsoleCtrlHandler(ignore_interrupt, TRUE);
    return GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0);
}
#else
/* A socket that is handed to the next process, as a service manager does it; -1: none. */
static int handed = -1;

static void hand_over(void)
{
    char pid[24];
    snprintf(pid, sizeof pid, "%ld", process_number());
    dup2(handed, 3);
    fcntl(3, F_SETFD, 0);      /* if it was 3 before */
    setenv("LISTEN_PID", pid, 1); /* NOLINT(concurrency-mt-unsafe): this process has one thread */
    setenv("LISTEN_FDS", "1", 1);      /* NOLINT(concurrency-mt-unsafe) */
}

static bool process_spawn(process *p, const char *const *argv, int max_files)
{
    int out = open(output_name(p, "out"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = open(output_name(p, "err"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    pid_t pid = out < 0 || err < 0 ? -1 : fork();
    if (pid == 0) {
        struct rlimit limit = { (rlim_t)max_files, (rlim_t)max_files };
        char *copy[16] = { NULL };
        for (int i = 0; i < 15 && argv[i]; i++) copy[i] = strdup(argv[i]);
        dup2(out, 1);
        dup2(err, 2);
        if (handed >= 0) hand_over();
        for (int fd = handed >= 0 ? 4 : 3; fd < 1024; fd++) close(fd);
        if (max_files && setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(126);
        (execv)(copy[0], copy);
        _exit(127);
    }
    close(out);
    close(err);
    pool[*p].pid = pid;
    return pid > 0;
}

static int process_wait(process *p, int ms)
{
    int status;
    pid_t r;
    for (int64_t until = ka_now_ms() + ms;
         (r = waitpid((pid_t)pool[*p].pid, &status, WNOHANG)) == 0 && ka_now_ms() < until;)
        ka_sleep_ms(5);
    if (r <= 0) return -1;
    pool[*p].running = false;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* Wait for its end: its exit status, or -1. *ms: how long that took, less what this machine's other
   work made each sleep here longer. */
static int process_wait_timed(process *p, int *ms)
{
    enum { SLEEP_MS = 50 };
    int status;
    *ms = 0;
    for (int64_t until = ka_now_ms() + PATIENCE_MS;
         (status = process_wait(p, 0)) < 0 && ka_now_ms() < until; *ms += SLEEP_MS)
        ka_sleep_ms(SLEEP_MS);
    return status;
}

/* What this process and its children read from stdin: a file, or a pipe into which is said what it
   gives; NULL: what it was before. */
static int input_before = -1, input_end = -1;

static void input_from(const char *path)
{
    int file = path ? open(path, O_RDONLY) : input_before;
    if (path) input_before = dup(0);
    if (file >= 0) dup2(file, 0);
    else close(0);
    if (file >= 0) close(file);
}

static bool input_pipe(void)
{
    int ends[2];
    if (pipe(ends) != 0) return false;
    input_before = dup(0);
    input_end = ends[1];
    bool ok = dup2(ends[0], 0) == 0 && fcntl(input_end, F_SETFD, FD_CLOEXEC) == 0;
    close(ends[0]);
    return ok;
}

static bool input_say(const char *text)
{
    return write(input_end, text, strlen(text)) == (ssize_t)strlen(text);
}
static void input_ends(void) { close(input_end); }

static void process_kill(process *p) { kill((pid_t)pool[*p].pid, SIGKILL); }
enum { POLITE = true };
static bool process_interrupt(process *p) { return kill((pid_t)pool[*p].pid, SIGINT) == 0; }
#endif

static bool process_start(process *p, int max_files, const char *const *argv)
{
    *p = pool_n++;
    if (pool_n > (int)COUNT(pool)) abort();
    pool[*p].running = process_spawn(p, argv, max_files);
    return CHECK(pool[*p].running, "%s starts", argv[0]);
}
#define START(p, ...) process_start(p, 0, (const char *const[]){ __VA_ARGS__, NULL })

/* What a process has written to "out" or "err" so far. */
static const char *output(const process *p, const char *kind)
{
    static char text[4][4096];
    static int turn;
    turn = (turn + 1) % 4;
    FILE *f = fopen(output_name(p, kind), "rb");
    size_t n = f ? fread(text[turn], 1, sizeof text[turn] - 1, f) : 0;
    text[turn][n] = 0;
    if (f) fclose(f);
    return text[turn];
}

/* Wait until it has written this. */
static bool await_output(const process *p, const char *kind, const char *text)
{
    for (int64_t until = ka_now_ms() + PATIENCE_MS; ka_now_ms() < until; ka_sleep_ms(5))
        if (strstr(output(p, kind), text)) return true;
    return CHECK(false, "\"%s\" on %s: got \"%s\"", text, kind, output(p, kind));
}

/* End it if it still runs, and remove its output. Politely at first: it may have a report to write.
   One of coverage must not be lost, and is added to those of others, in turn. */
static void process_end(process *p)
{
    int ms = getenv("GCOV_ERROR_FILE") ? PATIENCE_MS : 1000;
    if (pool[*p].running && !(POLITE && process_interrupt(p) && process_wait(p, ms) != -1)) {
        process_kill(p);
        process_wait(p, PATIENCE_MS);
    }
    (void)remove(output_name(p, "out"));
    (void)remove(output_name(p, "err"));
    if (*p == pool_n - 1) pool_n--;
}

static void processes_end(void)
{
    for (process p = pool_n - 1; p >= 0; p--) process_end(&p);
}

/* ---- children: this program again, in one of the ways below ---- */

#define CHILD(c, ...) ka_child_start(c, (const char *const[]){ "--child", __VA_ARGS__, NULL })

static void repeat(char byte, int n)
{
    while (n-- > 0) putchar(byte);
    puts("");
}

#if !defined(_WIN32)
/* Descriptors above 2 that a program started from here has. */
static int descriptors_passed(void)
{
    int n = 0;
    for (int fd = 3, flags; fd < 1024; fd++)
        n += (flags = fcntl(fd, F_GETFD)) != -1 && !(flags & FD_CLOEXEC);
    return n;
}

/* It tells what it found; ends politely, with its last words; has a child of its own. */
static int child_of_posix(const char *how)
{
    struct sigaction hup, term, broken;
    sigset_t mask;
    if (strcmp(how, "found") == 0) {
        sigaction(SIGHUP, NULL, &hup);
        sigaction(SIGTERM, NULL, &term);
        sigaction(SIGPIPE, NULL, &broken);
        pthread_sigmask(SIG_SETMASK, NULL, &mask);
        printf("%d descriptors, HUP %s, TERM %s, PIPE %s, USR1 %s\n", descriptors_passed(),
               hup.sa_handler == SIG_IGN ? "ignored" : "not",
               term.sa_handler == SIG_DFL ? "default" : "not",
               broken.sa_handler == SIG_DFL ? "default" : "not",
               sigismember(&mask, SIGUSR1) ? "blocked" : "free");
        return 0;
    }
    if (strcmp(how, "polite") == 0) {
        int number;
        sigemptyset(&mask);
        sigaddset(&mask, SIGTERM);
        pthread_sigmask(SIG_BLOCK, &mask, NULL);
        puts("ready");
        if (fflush(stdout) != 0 || sigwait(&mask, &number) != 0) return 1;
        ka_sleep_ms(200);      /* time for a second one */
        sigpending(&mask);
        printf("last words%s\n", sigismember(&mask, SIGTERM) ? ", told twice" : "");
        return 3;
    }
    ka_child c;
    char line[8];
    if (CHILD(&c, "wait") != KA_OK || ka_child_line(&c, line, sizeof line, PATIENCE_MS) != KA_OK)
        return 1;
    puts(line);
    for (fflush(stdout); ; ) ka_sleep_ms(1000);
}
#else
static int child_of_posix(const char *how) { return how[0] ? 1 : 0; }
#endif

/* Says each line of its input. After "leave" it ends while that is read; after "free" a thread
   reads on for nobody. */
static int child_of_input(void)
{
    ka_server *s;
    ka_event ev;
    if (ka_server_start(&s, 1) != KA_OK || ka_input_start(s) != KA_OK) return 1;
    for (puts("ready"); fflush(stdout) == 0 && ka_wait(s, &ev, -1) == KA_OK && !ev.error &&
                        !ka_is(ev.body, "leave") && !ka_is(ev.body, "free");)
        printf("[%.*s]\n", (int)ev.body.n, ev.body.p);
    if (ka_is(ev.body, "leave")) return 3;
    ka_input_stop();
    ka_server_free(s);
    puts("freed");
    fflush(stdout);
    while (atomic_load(&ka__input.reading)) ka_sleep_ms(1);
    return 4;
}

#ifdef __APPLE__
#define SERVER_IP "127.0.0.1"      /* 127.0.0.2 would have to be added to lo0 */
#else
#define SERVER_IP "127.0.0.2"
#endif

/* Pass on what one end says to the other; false at its end. */
static bool forward_some(ka__sock from, ka__sock to)
{
    static char bytes[65536];
    ptrdiff_t got = ka__sock_recv(from, bytes, sizeof bytes);
    return got > 0 ? ka__sock_send(to, bytes, (size_t)got) == got : got == KA_EAGAIN;
}

/* Forwards connections to the server on a port, as a proxy on this machine does. If it can
   (Linux 6.3), from the port that the client has: another connection may have that, too. */
static int child_of_forward(int to, bool same_port)
{
    ka__sock listener, a, b;
    ka_end client;
    int port = 0;
    if (ka_network_start() < 0 || sock_listen(&listener, &port) < 0) return 1;
    printf("%d\n", port);
    fflush(stdout);
    while (wire_wait(listener, KA__IN) && ka__sock_accept(listener, &a, &client) == KA_OK) {
        ka__address there;
        if (!ka__address_read(&there, SERVER_IP, to) || ka__sock_new(&there, SOCK_STREAM, &b) < 0)
            return 1;
#if defined(__linux__)
        uint32_t range = client.port * 65537u;
        const int option = 51;      /* IP_LOCAL_PORT_RANGE */
        if (same_port) setsockopt((int)b, IPPROTO_IP, option, &range, sizeof range);
#endif
        (void)connect(KA__FD(b), &there.any, there.n);
        if (ka__sock_wait(b, KA__OUT, 1000) != KA_OK) return 1;
        printf("the client's port %d, and %d\n", client.port, ka__sock_mine(b).port);
        fflush(stdout);
        while (forward_some(a, b) && forward_some(b, a)) ka_sleep_ms(1);
        ka__sock_close(a);
        ka__sock_close(b);
    }
    return (int)same_port;
}

static int sandboxed(int code, char **argv);

static int child_main(int argc, char **argv)
{
    const char *how = argv[2];
    if (strncmp(how, "forward", 7) == 0 && argc > 3)
        return child_of_forward(atoi(argv[3]), how[7] != 0);
    if (strcmp(how, "input") == 0) {
        return child_of_input();
    } else if (strcmp(how, "wait") == 0) {
        for (puts("ready"); fflush(stdout) == 0; ) ka_sleep_ms(1000);
    } else if (strcmp(how, "args") == 0) {
        for (int i = 3; i < argc; i++) printf("[%s]", argv[i]);
        printf("\n%d\n", getchar() == EOF);
    } else if (strcmp(how, "lines") == 0) {
        fputs("one\ntwo, in ", stdout);
        fflush(stdout);
        ka_sleep_ms(200);
        fputs("pieces\n\n", stdout);
        repeat('x', 3000);
        repeat('y', 1023);
        repeat('z', 1024);
        fputs("cut off", stdout);
        return 7;
    } else if (strcmp(how, "sandboxed") == 0) {
        return sandboxed(atoi(argv[3]), argv + 4);
    } else {
        return child_of_posix(how);
    }
    return 0;
}

/* The next line is this one. */
static void child_says(const char *file, int at, ka_child *c, const char *want)
{
    char line[2000] = "";
    int r = ka_child_line(c, line, sizeof line, PATIENCE_MS);
    check_at(file, at, r == KA_OK && strcmp(line, want) == 0,
             "wanted \"%.20s\": %s, \"%.20s\" of %d bytes", want, ka_error_text(r), line,
             (int)strlen(line));
}
#define SAYS(c, want) child_says(__FILE__, __LINE__, c, want)
