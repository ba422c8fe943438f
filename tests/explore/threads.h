/* threads.h - the scheduler. The threads are coroutines; one runs. Before each of its steps, which
   are the atomic operations and system calls, it chooses who makes the next step. To go on with
   another thread although this one could go on is a preemption. */

#include <ucontext.h>

enum { STACK = 1 << 19, STEPS = 20000, VAIN = 3 };
static char    stacks[THREADS][STACK] __attribute__((aligned(64)));

static void place_newest(view *v)
{
    for (int i = 0; i < places_n; i++) v->of[i] = places[i].order[places[i].n - 1];
}

/* Is there a newer store, of another thread, to an object that this one has read since it slept? */
static bool news_for(const thread *t)
{
    for (int i = 0; i < places_n; i++) {
        uint16_t newest = places[i].order[places[i].n - 1];
        bool newer = t->read.of[i] && newest != t->read.of[i];
        if (newer && stores[newest].thread != t - threads) return true;
    }
    return false;
}

/* Does a signal handler run on top of this thread? */
static bool is_interrupted(int t)
{
    for (int i = 0; i < threads_n; i++)
        if (threads[i].host == t && threads[i].begun && threads[i].state != DONE) return true;
    return false;
}

static bool is_ready(const thread *t)
{
    explore_enter();
    bool ready = t->ready(t->ready_arg);
    explore_leave();
    return ready;
}

static bool can_go(int i)
{
    thread *t = &threads[i];
    bool comes = t->host >= 0 && !t->begun;      /* a signal that was not delivered yet */
    if (comes && (threads[t->host].state == DONE || is_interrupted(t->host))) return false;
    if (is_interrupted(i)) return false;
    switch (t->state) {
    case READY:    return true;
    case WAITING:  return t->interrupted || is_ready(t);
    case SLEEPING: return t->interrupted || news_for(t) || (t->ready && is_ready(t));
    case JOINING:  return threads[t->joins].state == DONE;
    default:       return false;
    }
}

static void thread_main(void)
{
    thread *t = &threads[running];
    t->run(t->arg);
    if (t->host < 0) explore_end();
    t->state = DONE;
    t->clock.of[running]++;
    if (t->host >= 0) {        /* a handler's steps are its thread's, in their order */
        thread *h = &threads[t->host];
        view_add(&h->seen, &t->seen);
        clocks_add(&h->clock, &t->clock);
        h->history = mix(h->history, t->history);
        if (h->state == WAITING || h->state == SLEEPING) h->interrupted = true;
    }
    trace_step("ends");
    if (running == 0) longjmp(driver, ENDED);
    turn();
    fail_now("a thread that has ended runs");
}

static void thread_begin(int i)
{
    static ucontext_t context;
    thread *t = &threads[i];
    t->begun = true;
    if (t->host >= 0) {
        thread *h = &threads[t->host];
        t->seen = h->seen;
        t->clock = h->clock;
        t->clock.of[i] = 1;
        h->clock.of[t->host]++;
        t->history = mix(h->history, 11);
    }
    getcontext(&context);
    context.uc_stack.ss_sp = stacks[i];
    context.uc_stack.ss_size = STACK;
    context.uc_link = NULL;
    makecontext(&context, thread_main, 0);
    setcontext(&context);
}

static void thread_switch(int to)
{
    if (to == running) return;
    thread *from = &threads[running];
    if (from->state != DONE && _setjmp(from->at)) return;
    running = to;
    if (!threads[to].begun) thread_begin(to);
    _longjmp(threads[to].at, 1);
}

/* Nobody can go on at once. A sleeper wakes up when its millisecond has passed, unless it has done
   so in vain some times already. No longer time-out passes: no scenario needs one, so a thread that
   would wait for it has lost a wake-up. */
static int threads_late(int *who)
{
    int n = 0;
    for (int i = 0; i < threads_n; i++)
        if (threads[i].state == SLEEPING && threads[i].vain < VAIN && !is_interrupted(i))
            who[n++] = i;
    return n;
}

static void stuck(void)
{
    static char text[1000];
    size_t n = 0;
    for (int i = 0; i < threads_n; i++) {
        const thread *t = &threads[i];
        const char *what = t->state == SLEEPING ? "sleeps in vain" : t->text;
        if (t->state == JOINING) what = "waits for a thread's end";
        if (t->state != DONE && n < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s%s: %s", n ? "; " : "",
                                  thread_name(i), what);
    }
    fail_now("nobody can go on: %s", text);
}

static uint64_t state_key(int could_go)
{
    explore_enter();
    uint64_t key = explore_system_hash(), sum = 0;
    explore_leave();
    for (int i = 0; i < threads_n; i++) {
        const thread *t = &threads[i];
        key = mix(key, t->history);
        int flags = (int)t->state << 8 | t->vain << 4 | t->begun << 1 | t->interrupted;
        key = mix(key, (uint64_t)flags);
    }
    for (int i = 0; i < places_n; i++) {
        const place *p = &places[i];
        uint64_t order = mix(p->hash, p->sc ? stores[p->sc].name : 0);
        sum += mix((uint64_t)(uintptr_t)p->address, order);
    }
    if (search.late_bound) key = mix(key, (uint64_t)search.late);
    return mix(key, mix(sum, search.bound < 0 ? 0 : (uint64_t)(could_go ? running + 1 : 0)));
}

/* The running thread stands before a step: who makes the next one? */
static void turn(void)
{
    int who[THREADS], n = 0;
    bool could_go = can_go(running);
    if (++steps_n == STEPS) fail_now("no end after %d steps", steps_n);
    if (could_go) who[n++] = running;
    for (int i = 0; i < threads_n; i++)
        if (i != running && can_go(i)) who[n++] = i;
    bool late = n == 0;
    if (late) n = threads_late(who);
    if (n == 0) stuck();
    if (could_go && search.bound >= 0 && search.preemptions >= search.bound) n = 1;
    bool chosen = n > 1 || search.at > search.looked;
    if (chosen && search.at == search.n && !search.replays) {
        if (state_met(state_key(could_go))) longjmp(driver, CUT);
        search.looked = search.at;
    }
    int to = who[choose(n)];
    if (could_go && to != running) search.preemptions++;
    thread *t = &threads[to];
    if (late) t->vain++;
    thread_switch(to);
}

static int thread_new(void *(*run)(void *), void *arg)
{
    if (threads_n == THREADS) fail_now("too many threads");
    int i = threads_n++;
    thread *t = &threads[i];
    memset(t, 0, sizeof *t);
    t->state = READY;
    t->run = run;
    t->arg = arg;
    t->host = -1;
    t->history = (uint64_t)i + 100;
    t->clock.of[i] = 1;
    return i;
}

int explore_thread(unsigned long *id, void *(*run)(void *), void *arg)
{
    thread *by = &threads[running];
    int i = thread_new(run, arg);
    threads[i].seen = by->seen;
    clocks_add(&threads[i].clock, &by->clock);
    by->clock.of[running]++;
    *id = (unsigned long)i;
    trace_step("starts a thread");
    return 0;
}

void explore_handler(int host, void *(*run)(void *), void *arg)
{
    int i = thread_new(run, arg);
    threads[i].host = host;
}

int explore_join(unsigned long id)
{
    thread *t = &threads[running], *other = &threads[id];
    t->state = JOINING;
    t->joins = (int)id;
    turn();
    t->state = READY;
    view_add(&t->seen, &other->seen);
    clocks_add(&t->clock, &other->clock);
    t->history = mix(t->history, 13);
    trace_step("joins a thread");
    return 0;
}

/* A system call's moment. It orders nothing for the memory: that is more than any system allows. */
void explore_call(const char *text, long argument)
{
    thread *t = &threads[running];
    turn();
    t->history = mix(t->history, (uint64_t)argument + 17);
    trace_call(text, argument);
}

/* What was stored before a millisecond's sleep is seen after it: no processor is later. It is not
   known to have happened before. */
static void sleep_begin(thread *t, view *newest)
{
    *newest = t->seen;
    place_newest(newest);
    t->state = SLEEPING;
}

static void sleep_end(thread *t, const view *newest)
{
    view_add(&t->seen, newest);
    memset(&t->read, 0, sizeof t->read);
    for (int i = 0; i < places_n; i++)
        t->history = mix(t->history, t->seen.of[i] ? stores[t->seen.of[i]].name : 0);
}

void explore_result(long result)
{
    thread *t = &threads[running];
    t->history = mix(t->history, (uint64_t)result + 29);
}

bool explore_wait(const char *text, bool (*ready)(int), int arg, int ms)
{
    thread *t = &threads[running];
    view newest;
    bool sleeps = ms == 1;
    t->text = text;
    t->ready = ready;
    t->ready_arg = arg;
    if (sleeps) sleep_begin(t, &newest);
    else t->state = ms ? WAITING : READY;
    turn();
    bool came = is_ready(t);
    if (sleeps) sleep_end(t, &newest);
    t->history = mix(t->history, came ? 19 : 23);
    t->state = READY;
    t->interrupted = false;
    const char *vain = sleeps ? "has waited a millisecond" : "was interrupted";
    trace_step(came ? "has waited" : ms ? vain : "has looked");
    return came;
}

void explore_sleep(void)
{
    thread *t = &threads[running];
    view newest;
    t->ready = NULL;
    sleep_begin(t, &newest);
    turn();
    sleep_end(t, &newest);
    t->state = READY;
    t->interrupted = false;
    trace_step("has slept a millisecond");
}

int explore_self(void) { return threads[running].host < 0 ? running : threads[running].host; }
