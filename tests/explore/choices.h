/* choices.h - the search: depth first through all choices of a scenario's executions.

   An execution is a function of its choices: which thread makes the next step, which store a load
   reads, where in the order of its object's stores a store comes. `path` holds them. The next
   execution takes the same ones but the last, of which it takes the next option.

   A state that was met before is not looked into again. Its number is a hash of what each thread
   has done and read, of the stores of each object in their order, and of the simulated system. A
   thread is a function of what it has read, so equal states have equal futures. With a bound on
   preemptions a state counts as met if as many were left then, at least, and the
   same thread ran. */

enum { CHOICES = 20000 };
typedef struct { uint8_t taken, options; } choice;

static struct {
    choice   path[CHOICES];
    int      n, at;                  /* choices; at: those that this execution has made */
    int      bound, preemptions;     /* -1: no bound */
    int      late_bound, late;       /* of choose_late, all but option 0; 0: no bound */
    bool     replays;                /* the path is given: no state is looked up */
    uint64_t executions, states, steps, cut;
    int      longest;
    uint64_t *met;                   /* states; the low 4 bits: how many preemptions were left */
    size_t   met_room, met_n;
    int      looked;                 /* choices before the state was looked up last */
} search;

/* What is known of an address of an atomic object from all executions so far. */
typedef struct {
    const void *address;
    int         user, writer;        /* the only one; NOBODY, SEVERAL */
    uint64_t    execution;           /* the last one that used it */
} use;
enum { NOBODY = -1, SEVERAL = -2, USES = 200 };
static use  uses[USES];
static int  uses_n;
static bool uses_changed;            /* the search has to begin again */
static char uses_met[USES + 1];      /* a letter for each, in the order of their use */
static int  uses_met_n;
static const char *uses_given;       /* of a schedule that is replayed: these letters; or NULL */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    h *= 0xd6e8feb86659fd93u;
    return h ^ h >> 29;
}

/* One of n options. Option 0 is the ordinary one: go on with the same thread, read
   what is newest. */
static int choose(int n)
{
    if (n <= 1) return 0;
    if (search.at < search.n) {
        choice *c = &search.path[search.at++];
        c->options = (uint8_t)n;
        if (c->taken >= n) fail_now("the schedule does not fit: option %d of %d", c->taken, n);
        return c->taken;
    }
    if (search.at == CHOICES || n > 255) fail_now("an execution with too many choices");
    search.path[search.at++] = (choice){ 0, (uint8_t)n };
    search.n = search.at;
    return 0;
}

/* The same for what a load reads and where a store comes. */
static int choose_late(int n)
{
    if (search.late_bound && search.late >= search.late_bound) return 0;
    int c = choose(n);
    search.late += c > 0;
    return c;
}

/* To the next execution. False: there is none. */
static bool choices_next(void)
{
    for (; search.n; search.n--)
        if (search.path[search.n - 1].taken + 1 < search.path[search.n - 1].options) break;
    if (search.n) search.path[search.n - 1].taken++;
    return search.n > 0;
}

static void use_note(int *who, int by)
{
    if (*who == by || *who == SEVERAL) return;
    uses_changed = uses_changed || *who != NOBODY;
    *who = *who == NOBODY ? by : SEVERAL;
}

/* An execution's first use of an object. The letter: p, one thread's; s, several write; or 0 to 9,
   that thread writes. It is of the assumptions that the execution relies on. */
static void use_met(use *u)
{
    if (uses_given && *uses_given) {
        char letter = *uses_given++;
        u->user = letter == 'p' ? NOBODY : SEVERAL;
        u->writer = letter == 's' ? SEVERAL : letter == 'p' ? NOBODY : letter - '0';
    }
    u->execution = search.executions + 1;
    char writer = u->writer < 0 ? 's' : (char)('0' + u->writer);
    uses_met[uses_met_n++] = u->user == SEVERAL ? writer : 'p';
    uses_met[uses_met_n] = 0;
}

/* Is an operation on this object a step? Not on an object that no other thread uses, in any
   execution, and not a load by the only thread that writes the object. Others can't tell when such
   an operation is made. It is assumed of each object until an execution shows the opposite. The
   search begins anew then. (The first step that breaks the assumption comes behind steps that keep
   it. So the search that relies on it meets this step, too.) */
static bool place_shared(const void *address, bool loads, bool own_free)
{
    int i = 0;
    while (i < uses_n && uses[i].address != address) i++;
    if (i == USES) fail_now("too many atomic objects");
    if (i == uses_n) uses[uses_n++] = (use){ address, NOBODY, NOBODY, 0 };
    if (uses[i].execution != search.executions + 1) use_met(&uses[i]);
    use_note(&uses[i].user, running);
    if (!loads) use_note(&uses[i].writer, running);
    return uses[i].user == SEVERAL && !(own_free && uses[i].writer == running);
}

static void met_grow(void)
{
    size_t room = search.met_room ? search.met_room * 2 : 1 << 16, had = search.met_room;
    uint64_t *old = search.met;
    search.met = calloc(room, sizeof *search.met);
    if (!search.met) {
        fprintf(stderr, "explore: no memory for the states\n");
        exit(2);
    }
    search.met_room = room;
    for (size_t i = 0; i < had; i++) {
        size_t at = (old[i] >> 4) & (room - 1);
        if (!old[i]) continue;
        while (search.met[at]) at = (at + 1) & (room - 1);
        search.met[at] = old[i];
    }
    free(old);
}

/* Was this state met before, with as many preemptions left? From now on it was. */
static bool state_met(uint64_t key)
{
    uint64_t left = search.bound < 0 ? 0 : (uint64_t)(search.bound - search.preemptions);
    if (search.met_n * 3 >= search.met_room * 2) met_grow();
    key = key | 0x10;
    size_t at = (key >> 4) & (search.met_room - 1);
    while (search.met[at] && search.met[at] >> 4 != key >> 4) at = (at + 1) & (search.met_room - 1);
    if (search.met[at] && (search.met[at] & 15) >= left) return true;
    if (!search.met[at]) search.met_n++;
    search.met[at] = (key & ~(uint64_t)15) | left;
    search.states++;
    return false;
}

static void search_begin(int bound)
{
    memset(search.met, 0, search.met_room * sizeof *search.met);
    search.n = search.at = search.longest = search.looked = 0;
    search.met_n = 0;
    search.executions = search.states = search.steps = search.cut = 0;
    search.bound = bound;
}

/* The path as one word: "12,1,30,2:ps0" are 12 times option 0, option 1, 30 times 0, option 2; the
   letters are those of use_met. */
static void path_print(FILE *f)
{
    int zeros = 0, n = search.at < search.n ? search.at : search.n;
    bool first = true;
    for (int i = 0; i < n; i++) {
        if (!search.path[i].taken) {
            zeros++;
            continue;
        }
        fprintf(f, "%s%d,%d", first ? "" : ",", zeros, search.path[i].taken);
        first = false;
        zeros = 0;
    }
    if (first) fputs("0", f);
    fprintf(f, ":%s", uses_met);
}

static bool path_read(const char *text)
{
    search.n = 0;
    for (bool zeros = true; *text && *text != ':'; zeros = !zeros) {
        char *end;
        long v = strtol(text, &end, 10);
        if (end == text || v < 0 || v >= CHOICES - search.n) return false;
        if (!zeros) search.path[search.n++] = (choice){ (uint8_t)v, 255 };
        for (long i = 0; zeros && i < v; i++) search.path[search.n++] = (choice){ 0, 255 };
        text = *end == ',' ? end + 1 : end;
    }
    uses_given = *text ? text + 1 : NULL;
    return true;
}
