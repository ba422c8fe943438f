/* page.h - the page /docs, one literal a line. Nothing in it needs a double quote or a backslash. */
static const char *const page[] = {
    "<!doctype html>",
};
