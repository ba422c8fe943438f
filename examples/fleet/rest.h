/* rest.h - stub, until it is there */
static int  rest_start(fleet *f) { (void)f; return -1; }
static void rest_event(fleet *f, const ka_event *ev) { (void)f; (void)ev; }
static void rest_called(fleet *f, const call *c, int status, ka_str reply) { (void)f; (void)c; (void)status; (void)reply; }
static void rest_tell(fleet *f, ka_str event) { (void)f; (void)event; }
static void rest_tick(fleet *f) { (void)f; }
static void rest_free(fleet *f) { (void)f; }
