/* devices.h - stub, until it is there */
static int  devices_start(fleet *f) { (void)f; return KA_OK; }
static void devices_free(fleet *f) { (void)f; }
static void devices_event(fleet *f, const ka_event *ev) { (void)f; (void)ev; }
static void devices_tick(fleet *f, int64_t now_ms) { (void)f; (void)now_ms; }
static device *device_find(const fleet *f, const char *id) { (void)f; (void)id; return NULL; }
static device *device_get(fleet *f, const char *id) { (void)f; (void)id; return NULL; }
static size_t device_after(const fleet *f, const char *id) { (void)f; (void)id; return 0; }
static void device_put(ka_json_out *w, const char *name, const device *d) { (void)w; (void)name; (void)d; }
static bool device_read(device *d, const ka_json *v) { (void)d; (void)v; return false; }
static ka_str device_event(char *room, const device *d, unsigned changes, ka_str blob) { (void)d; (void)changes; (void)blob; return (ka_str){ room, 0 }; }
static void device_changed(fleet *f, device *d, unsigned changes, const char *was, ka_str blob) { (void)f; (void)d; (void)changes; (void)was; (void)blob; }
static void device_changed_elsewhere(fleet *f, device *d, ka_str event) { (void)f; (void)d; (void)event; }
static void device_lost(fleet *f, device *d) { (void)f; (void)d; }
static void device_reaped(fleet *f, device *d, ka_str event) { (void)f; (void)d; (void)event; }
static int  call_start(fleet *f, device *d, const char *message, const ka_event *request, int route) { (void)f; (void)d; (void)message; (void)request; (void)route; return 503; }
static void call_from(fleet *f, const char *from, uint64_t from_number, const char *id, const char *message) { (void)f; (void)from; (void)from_number; (void)id; (void)message; }
static void call_done(fleet *f, uint64_t number, int status, ka_str reply) { (void)f; (void)number; (void)status; (void)reply; }
static void call_timeout(fleet *f, uint64_t number) { (void)f; (void)number; }
