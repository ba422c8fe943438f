/* share.h - stub, until it is there */
static int  share_start(fleet *f) { (void)f; return -1; }
static bool share_event(fleet *f, const ka_event *ev) { (void)f; (void)ev; return false; }
static void share_tick(fleet *f, int64_t now_ms) { (void)f; (void)now_ms; }
static const char *share_text(const fleet *f) { (void)f; return "none"; }
static void share_free(fleet *f) { (void)f; }
static void share_put(fleet *f, device *d, const char *was, ka_str event) { (void)f; (void)d; (void)was; (void)event; }
static int  share_call(fleet *f, const device *d, const call *c) { (void)f; (void)d; (void)c; return 503; }
static void share_reply(fleet *f, const char *to, uint64_t number, int status, ka_str reply) { (void)f; (void)to; (void)number; (void)status; (void)reply; }
