/* crash/states.h - all that a crash may leave of a disk at a point of a run. Each is recovered. */

static int    subsets = 10;        /* of so many units all subsets are taken */
static int    crashes = 1;           /* crashes of the recovery, one after the other */
static uint64_t *met;              /* hashes of the states that were recovered */
static size_t met_n, met_cap, points_n, states_n, recovered_n;
static bool   wrong;               /* the scenario has failed */

static void     recover(void);     /* opens what is there, and compares it with what was told */
static uint64_t promise_hash(uint64_t h);
static void     promise_save(bool back);

/* Is it new? Then it is kept. */
static bool state_new(uint64_t h)
{
    if (met_n * 2 >= met_cap) {
        uint64_t *old = met;
        size_t cap = met_cap;
        met_cap = cap ? cap * 2 : 1 << 16;
        met = calloc(met_cap, sizeof *met);
        if (!met) abort();
        met_n = 0;
        for (size_t i = 0; i < cap; i++) if (old[i]) state_new(old[i]);
        free(old);
    }
    size_t at = h & (met_cap - 1);
    while (met[at] && met[at] != h) at = (at + 1) & (met_cap - 1);
    if (met[at]) return false;
    met[at] = h;
    met_n++;
    return true;
}

static void disk_free(disk *d)
{
    for (int i = 0; i < INODES; i++) {
        release(&d->inodes[i].now);
        release(&d->inodes[i].durable);
        release(&d->inodes[i].data);
    }
    for (int i = 0; i < NAMES; i++) release(&d->left.files[i]);
    free(d);
}

static disk *disk_new(disk *before)
{
    disk *d = calloc(1, sizeof *d);
    if (!d) abort();
    d->before = before;
    d->level = before ? before->level + 1 : 0;
    d->clock_ms = before ? 1000000 + 7000 * d->level : 1000000;
    d->watched = d->level <= crashes;
    return d;
}

/* Recover what now_disk has, and come back to the run that left it. */
static void disk_recover(disk *before)
{
    const int64_t clock = real_ms;
    recovered_n++;
    promise_save(false);
    recover();
    promise_save(true);
    real_ms = clock;
    disk_free(now_disk);
    now_disk = before;
}

static void state_recover(disk *d)
{
    const leftover *l = &d->left;
    uint64_t h = promise_hash((uint64_t)d->level);
    for (int i = 0; i < NAMES; i++) h = h * 31 + (uint64_t)l->names[i];
    for (int i = 0; i < l->inodes_n; i++)
        h = h * 0x9e3779b97f4a7c15 + hash(l->files[i].p, l->files[i].n) + l->files[i].n;
    states_n++;
    if (wrong || !state_new(h | 1)) return;
    now_disk = disk_new(d);
    for (int i = 0; i < l->inodes_n; i++) {
        int at = inode_new(&l->files[i]);
        for (int k = 0; k < NAMES; k++) if (l->names[k] == i + 1) now_disk->names[k] = at;
    }
    memcpy(now_disk->durable_names, now_disk->names, sizeof now_disk->names);
    disk_recover(d);
}

static bytes bytes_copy(const bytes *b)
{
    bytes copy = { NULL, 0, 0 };
    append(&copy, b->p, b->n);
    return copy;
}

/* The process ends here, and not the machine: what is not synced is read, and may yet be lost. */
static void killed_recover(disk *d)
{
    now_disk = disk_new(d);
    now_disk->clock_ms = d->clock_ms;
    now_disk->inodes_n = d->inodes_n;
    now_disk->folder_n = d->folder_n;
    memcpy(now_disk->names, d->names, sizeof d->names);
    memcpy(now_disk->durable_names, d->durable_names, sizeof d->names);
    memcpy(now_disk->folder, d->folder, sizeof d->folder);
    for (int i = 1; i <= d->inodes_n; i++) {
        inode *f = &now_disk->inodes[i];
        *f = d->inodes[i];
        f->now = bytes_copy(&f->now);
        f->durable = bytes_copy(&f->durable);
        f->data = bytes_copy(&f->data);
    }
    d->left.inodes_n = -1;
    disk_recover(d);
}

static void files_left(disk *d, int i);

/* The bytes of a file with that size, and those units that are kept. */
static void file_left(disk *d, int i, size_t size)
{
    const inode *f = &d->inodes[d->left.inodes[i]];
    bytes *out = &d->left.files[i];
    d->left.sizes[i] = size;
    out->n = 0;
    append(out, f->durable.p, f->durable.n < size ? f->durable.n : size);
    resize(out, size);
    for (int u = 0; u < f->units_n; u++) {
        const unit *w = &f->units[u];
        if (!d->left.kept[i][u] || w->at >= size) continue;
        memcpy(out->p + w->at, f->data.p + w->from, size - w->at < w->n ? size - w->at : w->n);
    }
    files_left(d, i + 1);
}

/* Turn up to `most` of the units from the u-th on; then the file is as it is left. */
static void units_turned(disk *d, int i, size_t size, int u, int most)
{
    const inode *f = &d->inodes[d->left.inodes[i]];
    bool *kept = d->left.kept[i];
    while (u < f->units_n && f->units[u].at >= size) u++;
    if (u >= f->units_n || most == 0) {
        file_left(d, i, size);
        return;
    }
    units_turned(d, i, size, u + 1, most);
    kept[u] = !kept[u];
    units_turned(d, i, size, u + 1, most - 1);
    kept[u] = !kept[u];
}

static void units_left(disk *d, int i, size_t size)
{
    const inode *f = &d->inodes[d->left.inodes[i]];
    bool *kept = d->left.kept[i], first = true;
    int n = 0, all = d->level == 0 ? subsets : subsets / 2, few = d->level == 0 ? 2 : 1;
    for (int u = 0; u < f->units_n; u++) n += f->units[u].at < size;
    for (int k = 0; k < i; k++) first = first && d->inodes[d->left.inodes[k]].units_n == 0;
    memset(kept, 0, sizeof d->left.kept[i]);
    if (n <= all && first) {
        units_turned(d, i, size, 0, n);
        return;
    }
    for (int u = 0; u <= f->units_n; u++) {      /* the prefixes */
        file_left(d, i, size);
        kept[u < f->units_n ? u : 0] = true;
    }
    if (!first) return;
    units_turned(d, i, size, 0, few);
    memset(kept, 0, sizeof d->left.kept[i]);
    units_turned(d, i, size, 0, few);
}

/* The i-th file, and those behind it, in each of their states. */
static void files_left(disk *d, int i)
{
    if (wrong) return;
    if (i == d->left.inodes_n) {
        state_recover(d);
        return;
    }
    const inode *f = &d->inodes[d->left.inodes[i]];
    for (int k = 0; k < f->sizes_n; k++) units_left(d, i, f->sizes[k]);
}

/* May the k-th operation on the folder be there? Those before it that touch one of its names must
   be, since the folder has each name once. */
static bool folder_may(const disk *d, int k)
{
    const folder_op *b = &d->folder[k];
    for (int i = 0; i < k; i++) {
        const folder_op *a = &d->folder[i];
        bool touches = a->name == b->name || (a->kind >= RENAME && a->from == b->name) ||
                       (b->kind >= RENAME && (a->name == b->from ||
                                              (a->kind >= RENAME && a->from == b->from)));
        if (touches && d->left.done[i] != 1) return false;
    }
    return true;
}

/* The names, and the files that they lead to. */
static void names_left(disk *d)
{
    leftover *l = &d->left;
    int names[NAMES];
    memcpy(names, d->durable_names, sizeof names);
    for (int i = 0; i < d->folder_n; i++) {
        const folder_op *o = &d->folder[i];
        if (!l->done[i]) continue;
        names[o->name] = o->kind == UNSET ? 0 : o->inode;
        if (o->kind >= RENAME && l->done[i] == 1) names[o->from] = 0;
    }
    l->inodes_n = 0;
    for (int i = 0; i < NAMES; i++) {
        int k = 0;
        while (k < l->inodes_n && l->inodes[k] != names[i]) k++;
        l->names[i] = names[i] ? k + 1 : 0;
        if (names[i] && k == l->inodes_n) l->inodes[l->inodes_n++] = names[i];
    }
    files_left(d, 0);
}

static void folder_left(disk *d, int k)
{
    if (k == d->folder_n) {
        names_left(d);
        return;
    }
    int ways = !folder_may(d, k) ? 1 : d->folder[k].kind == RENAME ? 3 : 2;
    for (int way = 0; way < ways; way++) {
        d->left.done[k] = way;
        folder_left(d, k + 1);
    }
}

static void point(void)
{
    if (wrong || !now_disk->watched) return;
    points_n += now_disk->level == 0;
    folder_left(now_disk, 0);
    if (now_disk->level == 0 && !wrong) killed_recover(now_disk);
}

/* ---- what is wrong ---- */

static void disk_tell(const disk *d)
{
    if (d->before) disk_tell(d->before);
    printf("  run %d:\n", d->level);
    for (int i = 0; i < d->ops_n; i++) {
        const disk_step *o = &d->ops[i];
        printf("    %2d %s", i + 1, o->what);
        if (o->name) printf(" %s", o->name);
        if (o->file) printf(", file %d: %d bytes at %d", o->file, (int)o->n, (int)o->at);
        printf("\n");
    }
}

static void leftover_tell(const disk *d)
{
    const leftover *l = &d->left;
    if (d->before) leftover_tell(d->before);
    printf("  what the crash of run %d left:%s\n", d->level,
           l->inodes_n < 0 ? " all, since only the process was killed" : "");
    if (l->inodes_n < 0) return;
    for (int i = 0; i < NAMES; i++) {
        if (!l->names[i]) continue;
        int k = l->names[i] - 1;
        const inode *f = &d->inodes[l->inodes[k]];
        printf("    %s: file %d, %d bytes; of %d units not synced are there:", name_list[i],
               l->inodes[k], (int)l->files[k].n, f->units_n);
        for (int u = 0; u < f->units_n; u++)
            if (l->kept[k][u]) printf(" %d+%d", (int)f->units[u].at, (int)f->units[u].n);
        printf("\n");
    }
}

__attribute__((format(printf, 1, 2)))
static void found_wrong(const char *format, ...)
{
    va_list args;
    if (wrong) return;
    wrong = true;
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    disk_tell(now_disk);
    if (now_disk->before) leftover_tell(now_disk->before);
}

#define MUST(ok, ...) do { if (!(ok)) found_wrong(__VA_ARGS__); } while (0)
