/* tests/play.h - a Redis that is played by the test. The steps of a script say what comes, what is
   replied, and what keyauth makes of it. */

typedef struct {
    ka_server  *s;
    ka_redis    r;
    ka_redis_store keys;
    ka__sock    listener, sock;                    /* of the one that is played; -1: none */
    int         port, web_port, changes, pushes, greeting, owed_n, pings;
    bool        bytewise, accepts, mute, web_open, ended;
    size_t      n;                                 /* bytes in got */
    char        got[4 * KA_MAX_BODY];
    char        heard[16384];     /* commands that the script has not looked at, a line each */
    char        owed[1024];       /* whose replies are due, in their order: c, or of play_own */
    const char *own[4];                            /* what is replied to those of play_own */
    ka_redis_address at;
    char        name[KA_MAX_ID + 65], key[KA_KEY_TEXT + 1], pushed[512];
    wire        web;
} play;

/* Commands that are no step of a play, and p->own has their replies: PING, SET of master?, CONFIG
   and INFO. */
static const char play_own[] = "PSCI";

/* To whoever connects and speaks: replies to a PING are its own matter, once the
   greeting is over. */
static void play_pongs(play *p)
{
    int n = 0;
    for (const char *own; n < p->owed_n && (own = strchr(play_own, p->owed[n])) != NULL; n++) {
        const char *reply = p->own[own - play_own];
        ka__sock_send(p->sock, reply, strlen(reply));
        p->pings += own < play_own + 2;
    }
    memmove(p->owed, p->owed + n, (size_t)(p->owed_n -= n));
}

/* Take the next command off what has arrived; false: it isn't whole. */
static bool play_command(play *p)
{
    ka_cut cut = { 0, 0, 0 };
    ka_resp command, word;
    ptrdiff_t n = ka__resp_find(&cut, p->got, p->n);
    size_t from = strlen(p->heard), at = from;
    if (n < 0 && n != KA_EAGAIN) CHECK(false, "no command: %.40s", p->got);
    if (n < 0) return false;
    ka_resp_read(&command, (ka_str){ p->got, (size_t)n });
    while (ka_resp_next(&command, &word))
        at += (size_t)snprintf(p->heard + at, sizeof p->heard - at, "%s%.*s", at > from ? " " : "",
                               (int)word.text.n, word.text.p);
    memmove(p->got, p->got + n, p->n -= (size_t)n);
    char kind = p->heard[from];
    const char *form = kind == 'P' ? "PING" : kind == 'S' ? "master?  XX" :
                       kind == 'C' ? "CONFIG GET maxmemory-policy" : "INFO memory";
    bool own = p->greeting == 0 && strchr(play_own, kind) && strstr(p->heard + from, form);
    if (p->greeting > 0) p->greeting--;
    if (own) p->heard[from] = 0;
    else snprintf(p->heard + at, sizeof p->heard - at, "\n");
    p->owed[p->owed_n++ % (int)sizeof p->owed] = own ? kind : 'c';
    return true;
}

static void play_end(play *p)
{
    if (p->sock != -1) ka__sock_close(p->sock);
    p->sock = -1;
    p->n = 0;
    p->owed_n = 0;
}

/* Again, too: so the port is one that nobody else is given meanwhile. */
static void play_listen(play *p)
{
    if (p->port == 0) p->port = free_port();
    CHECK(sock_listen_at(&p->listener, "127.0.0.1", &p->port) == KA_OK, "Redis is played at %d",
          p->port);
}

static void play_hear(play *p)
{
    if (p->accepts && ka__sock_accept(p->listener, &p->sock, NULL) == KA_OK) {
        p->accepts = false;
        p->greeting = *p->at.user || *p->at.password ? 2 : 1;
        p->heard[0] = 0;
    }
    if (p->sock == -1 || p->mute) return;
    ptrdiff_t got = ka__sock_recv(p->sock, p->got + p->n, sizeof p->got - p->n);
    if (got > 0) p->n += (size_t)got;
    while (p->n > 0 && play_command(p)) {}
    play_pongs(p);
    if (got > 0 || got == KA_EAGAIN) return;
    play_end(p);
}

/* One turn of the parent, and of the Redis that is played, and of who asks by HTTP. */
static void play_turn(play *p)
{
    ka_event ev;
    fault_exempt = false;
    int r = ka_wait(p->s, &ev, 1);
    p->ended = r == KA_ESTOPPED;
    if (r == KA_OK) {
        CHECK(ev.kind == KA_LISTENING || ev.kind == KA_REQUEST, "an event of kind %d", ev.kind);
        if (ev.kind == KA_LISTENING) p->web_port = ev.error ? -1 : ev.port;
        if (ev.kind == KA_REQUEST && p->keys.redis) ka_auth(p->s, &p->keys.store, &ev);
    }
    fault_exempt = true;
    play_hear(p);
    ptrdiff_t got = p->web_open ? ka__sock_recv(p->web.sock, p->web.buf + p->web.n,
                                                sizeof p->web.buf - p->web.n)
                                : 0;
    if (got > 0) p->web.n += (size_t)got;
    fault_exempt = false;
}

#define PLAY_UNTIL(p, condition)                                                                   \
    do                                                                                             \
        for (int64_t until_ = ka_now_ms() + PATIENCE_MS; !(condition) && ka_now_ms() < until_;)    \
            play_turn(p);                                                                          \
    while (0)

static void play_changed(ka_redis *r, bool up)
{
    play *p = r->arg;
    p->changes++;
    if (up != p->r.up || up == (p->changes % 2 == 0))
        CHECK(false, "change %d is to %d", p->changes, up);
}

static void play_set(play *p, const char *password)
{
    memset(p, 0, sizeof *p);
    p->listener = p->sock = -1;
    p->r = (ka_redis){ .at = &p->at, .on_change = play_changed, .arg = p };
    strcpy(p->at.host, "127.0.0.1");
    const char *colon = password ? strchr(password, ':') : NULL;      /* USER:PASSWORD, or USER: */
    if (colon) snprintf(p->at.user, sizeof p->at.user, "%.*s", (int)(colon - password), password);
    if (password) strcpy(p->at.password, colon ? colon + 1 : password);
    p->own[0] = "+PONG\r\n";
    p->own[1] = "$-1\r\n";
    p->own[2] = "*2\r\n$16\r\nmaxmemory-policy\r\n$10\r\nnoeviction\r\n";
    p->own[3] = "-NOPERM INFO\r\n";
    memset(p->key, 'A', KA_KEY_TEXT - 2);
    memcpy(p->key + KA_KEY_TEXT - 2, "==", 2);
    play_listen(p);
    p->at.port = p->port;
}

static int play_go(play *p)
{
    int r = ka_server_start(&p->s, 1);
    if (r == KA_OK) r = ka_listen(p->s, "127.0.0.1", 0);
    return r == KA_OK ? ka_redis_start(&p->r, p->s) : r;
}

static bool play_start(play *p, const char *password)
{
    play_set(p, password);
    return CHECK(play_go(p) == KA_OK, "it starts");
}

static void play_free(play *p)
{
    ka_redis_free(&p->r);
    ka_redis_free(&p->r);
    CHECK(!p->r.up && !p->r.waiting && !p->r.server, "nothing is left");
    ka_server_free(p->s);
    if (p->web_open) wire_close(&p->web);
    if (p->sock != -1) play_end(p);
    if (p->listener != -1) ka__sock_close(p->listener);
}

/* Text with KEY in it for the key that was answered. */
static const char *play_text(const play *p, const char *form)
{
    static char text[1024];
    const char *at = strstr(form, "KEY");
    snprintf(text, sizeof text, "%.*s%s%s", at ? (int)(at - form) : (int)strlen(form), form,
             at ? p->key : "", at ? at + 3 : "");
    return text;
}

/* Is this command as wanted, # standing for a name: that of the key that was asked for last? */
static bool play_is(play *p, const char *command, const char *want)
{
    char text[1024];
    const char *at = strchr(want, '#'), *name = at ? command + (at - want) : NULL;
    bool first = strncmp(want, "SET", 3) == 0 || !*p->name;
    if (at && first && strlen(command) > (size_t)(at - want))
        snprintf(p->name, sizeof p->name, "%.*s", (int)strcspn(name, " "), name);
    snprintf(text, sizeof text, "%.*s%s%s", at ? (int)(at - want) : (int)strlen(want), want,
             at ? p->name : "", at ? at + 1 : "");
    return strcmp(command, text) == 0;
}

/* Redis keeps SHA-256 of the key's bytes, by the prefix. */
static void play_key(play *p, const char *key)
{
    unsigned char raw[KA_KEY_BYTES], digest[32];
    char name[sizeof p->name] = "";
    snprintf(p->key, sizeof p->key, "%.*s", KA_KEY_TEXT, key);
    bool good = strlen(key) == KA_KEY_TEXT &&
                ka_b64_decode(raw, sizeof raw, key, KA_KEY_TEXT) == KA_KEY_BYTES;
    ka_sha256(digest, raw, sizeof raw);
    int n = snprintf(name, sizeof name, "%s", p->at.prefix);
    ka_hex_encode(name + n, digest, sizeof digest);
    CHECK(good && strcmp(p->name, name) == 0, "\"%s\" is kept as %s, not %s", key, p->name, name);
}

static void play_ask(play *p, const char *body)
{
    static const char head[] = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s";
    char text[1024];
    PLAY_UNTIL(p, p->web_port);
    if (!p->web_open) p->web_open = wire_open(&p->web, p->web_port);
    snprintf(text, sizeof text, head, (int)strlen(body), body);
    CHECK(p->web_open && wire_text(&p->web, text), "\"%s\" is sent", body);
}

static bool play_answered(play *p)
{
    ka__http h;
    ptrdiff_t head = ka__http_response(&h, p->web.buf, p->web.n);
    return head > 0 && p->web.n >= (size_t)(head + h.length);
}

static void play_answer(play *p, const char *want, const char *why)
{
    char text[300], said[320], head[1024] = "";
    bool key = strcmp(want, "200 KEY") == 0;
    PLAY_UNTIL(p, play_answered(p));
    if (!CHECK(play_answered(p), "%s: an answer comes", why)) return;
    int status = wire_answer(&p->web, text, sizeof text, head, false);
    bool ends = strstr(head, "\r\nKeyauth-Ends: ") != NULL;
    snprintf(said, sizeof said, "%d %s", status, text);
    CHECK((status != 200 && status != 403) || ends != key, "%s: ends to logins only: %s", why,
          head);
    if (key && status == 200) play_key(p, text);
    else CHECK(strcmp(said, play_text(p, want)) == 0, "%s: %s, not %s", why, said, want);
}

static void play_say(play *p, const char *text)
{
    for (size_t n = strlen(text), at = 0, part; at < n && p->sock != -1; at += part) {
        /* A long text byte by byte would take longer than Redis may be silent. */
        part = p->bytewise && at < 20 ? 1 : n - at;
        ka__sock_send(p->sock, text + at, part);
        if (part < n) play_turn(p);
    }
}

static void play_reply(play *p, const char *text)
{
    char line[2 * KA_MAX_ID];
    snprintf(line, sizeof line, "%s\r\n", text);
    play_say(p, line);
    if (p->owed_n > 0) memmove(p->owed, p->owed + 1, (size_t)--p->owed_n);
    play_pongs(p);
}

/* The steps of a play: a letter, and the words behind it.
     Redis:    a  is connected to         G  is connected to, and greets
               <  gets this command       >  replies so to the first command without a reply
               !  says this               p  gets two PINGs
               x  closes                  g  was closed
               d  closes, and listens no more
               l  listens again           m  says and hears nothing    M  does again
               S C I  replies so to SET of master?, to CONFIG, to INFO
     keyauth:  +  is up                   :  is up, with these words
               -  is down, with words like these
               P  knows this policy       T  waits so many ms between attempts
               s  is asked to stop        w  waits as long as it may between attempts
               e  has ended, with these words or none
     HTTP:     ?  asks this               =  gets this answer */
static void play_keyauth_step(play *p, const char *step, const char *why)
{
    const char *text = step + 1;
    switch (*step) {
    case '+':
        PLAY_UNTIL(p, p->r.up);
        CHECK(p->r.up, "%s: not up: %s", why, ka_redis_trouble(&p->r));
        break;
    case '-':
        PLAY_UNTIL(p, !p->r.up && strstr(ka_redis_trouble(&p->r), text));
        CHECK(!p->r.up && strstr(ka_redis_trouble(&p->r), text), "%s: up %d, \"%s\", not \"%s\"",
              why, p->r.up, ka_redis_trouble(&p->r), text);
        break;
    case 'P':
        PLAY_UNTIL(p, strcmp(p->r.policy, text) == 0);
        CHECK(strcmp(p->r.policy, text) == 0, "%s: policy \"%s\"", why, p->r.policy);
        break;
    case 'w':
        PLAY_UNTIL(p, p->r.retry_ms == KA_REDIS_MS);
        CHECK(p->r.retry_ms == KA_REDIS_MS, "%s: %d ms", why, p->r.retry_ms);
        break;
    case 'T': p->r.retry_ms = atoi(text); break;
    case ':':      /* it is up so for KA_REDIS_RETRY_MS only: or it was, and has closed meanwhile */
        PLAY_UNTIL(p, (p->r.up || p->sock == -1) && strcmp(ka_redis_trouble(&p->r), text) == 0);
        CHECK(strcmp(ka_redis_trouble(&p->r), text) == 0, "%s: up %d, \"%s\", not \"%s\"", why,
              p->r.up, ka_redis_trouble(&p->r), text);
        break;
    case 's': ka_stop(p->s); break;
    case 'e': {      /* an attempt that ka_stop ended has no words */
        PLAY_UNTIL(p, p->ended);
        const char *words = ka_redis_trouble(&p->r);
        CHECK(p->ended && !p->r.up && (!*words || strcmp(words, text) == 0), "%s: ended, \"%s\"",
              why, words);
        break;
    }
    case '?': play_ask(p, play_text(p, text)); break;
    case '=': play_answer(p, text, why); break;
    default: CHECK(false, "%s: no such step: %s", why, step);
    }
}

static void play_step(play *p, const char *step, const char *why)
{
    const char *text = step + 1;
    char *line = p->heard;
    switch (*step) {
    case 'a':
        p->accepts = true;
        PLAY_UNTIL(p, p->sock != -1);
        CHECK(p->sock != -1, "%s: connected to", why);
        break;
    case 'g': PLAY_UNTIL(p, p->sock == -1); CHECK(p->sock == -1, "%s: closed", why); break;
    case '<':
        PLAY_UNTIL(p, strchr(line, '\n'));
        line[strcspn(line, "\n")] = 0;
        CHECK(play_is(p, line, text), "%s: \"%s\", not \"%s\"", why, line, text);
        memmove(line, line + strlen(line) + 1, sizeof p->heard - strlen(line) - 1);
        break;
    case '>': play_reply(p, text); break;
    case '!': play_say(p, text); break;
    case 'd': ka__sock_close(p->listener); p->listener = -1;      /* fall through */
    case 'x': play_end(p); break;
    case 'l': play_listen(p); break;
    case 'm': case 'M': p->mute = *step == 'm'; break;
    case 'p':
        p->pings = 0;
        PLAY_UNTIL(p, p->pings >= 2);
        CHECK(p->pings >= 2, "%s: %d PINGs", why, p->pings);
        break;
    case 'S': case 'C': case 'I': p->own[strchr(play_own, *step) - play_own] = text; break;
    case 'G':
        play_step(p, "a", why);
        play_step(p, "<PING", why);
        play_step(p, ">+PONG", why);
        play_step(p, "+", why);
        break;
    default: play_keyauth_step(p, step, why);
    }
}
