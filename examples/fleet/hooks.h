/* hooks.h - stub, until it is there */
static int  hooks_start(fleet *f) { (void)f; return -1; }
static bool hooks_event(fleet *f, const ka_event *ev) { (void)f; (void)ev; return false; }
static void hooks_add(fleet *f, ka_str event) { (void)f; (void)event; }
static void hooks_put(ka_json_out *w, const char *name, const fleet *f) { (void)f; ka_json_put(w, name, (ka_str){ NULL, 0 }); }
static void hooks_free(fleet *f) { (void)f; }
