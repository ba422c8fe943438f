/* state.h - stub, until it is there */
static int  state_open(fleet *f) { (void)f; return -1; }
static void state_tick(fleet *f) { (void)f; }
static void state_close(fleet *f) { (void)f; }
