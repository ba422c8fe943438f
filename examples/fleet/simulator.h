/* simulator.h - stub, until it is there */
static int  simulate(int argc, char **argv) { (void)argc; (void)argv; return fail(EXIT_FAILED, "not yet"); }
