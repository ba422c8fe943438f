-- The load, for wrk: wrk ... -s bench/load.lua URL -- SHAPE
--   ask              one ask after another
--   ask16            sixteen in one write
--   close            a connection per ask
--   fill FILE N      ask until there are N keys, write them to FILE, then say FILLED and send no more; wrk sleeps on
--                    until its seconds are over, unless it is interrupted
--   ask-table FILE   asks, each text picked at random from a table as long as FILE
--   mix FILE         one ask to four logins with the keys in FILE, picked the same way
-- Ends with one line: RESULT requests seconds errors p50 p99 p99.9 (microseconds)
local id = string.rep("keyauth+", 11)

-- Whole requests, made before the clock starts: to pick one allocates nothing, so that asking and the mix cost wrk the
-- same. An ask of the table has a key of the file as its ID, so that no two texts are alike in either shape and each
-- pick misses the cache alike.
local function pick_from(file, asks)
    local texts, n, random = {}, 0, math.random
    for key in io.lines(file) do
        texts[n + 1] = wrk.format(nil, nil, nil, (n % 5 < asks and "ask_key=" or "login=") .. key)
        n = n + 1
    end
    math.randomseed(os.time())
    return function() return texts[random(n)] end
end

-- The file is closed here and not by wrk, which ends without closing what its scripts opened.
local function write_to(file, most)
    local f, n = assert(io.open(file, "w")), 0
    return function(status, headers, body)
        if n == most then return end
        f:write(body, "\n")
        n = n + 1
        if n == most then
            f:close()
            io.write("FILLED\n")
            io.flush()
            wrk.thread:stop()
        end
    end
end

function init(args)
    local shape = args[1]
    wrk.method = "POST"
    wrk.headers["Host"] = "bench"
    if shape == "close" then wrk.headers["Connection"] = "close" end
    wrk.body = "ask_key=" .. id
    if shape == "ask16" then
        local text = string.rep(wrk.format(), 16)
        request = function() return text end
    elseif shape == "fill" then
        response = write_to(args[2], tonumber(args[3]))
    elseif shape == "ask-table" then
        request = pick_from(args[2], 5)
    elseif shape == "mix" then
        request = pick_from(args[2], 1)
    end
end

function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format("RESULT %d %.6f %d %d %d %d\n", summary.requests, summary.duration / 1e6,
        e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
