# First the reasons, "function: line # reason"; then gcov's "count:number:line", of several programs one after the other.
FILENAME ~ /uncovered$/ {
    if (match($0, / +# /)) reasons[substr($0, 1, RSTART - 1)] = substr($0, RSTART + RLENGTH)
    next
}
/^ *-: *0:Source:/ { ours = /Source:(\.\/)?keyauth\.h$/ }
ours && match($0, /^ *[^:]+: *[0-9]+:/) {
    split(substr($0, 1, RLENGTH), field, ":")
    count = field[1]; line = field[2] + 0; text = substr($0, RLENGTH + 1)
    gsub(/ /, "", count)
    if (line > last) last = line
    if (line) source[line] = text
    if (count == "-") next
    counted[line] = 1
    if (count !~ /^[#=]/) run[line] = 1
    if (count !~ /^[#=]/ && count !~ /\*/) whole[line] = 1
}
END {
    for (line = 1; line <= last; line++) {
        if (match(source[line], /^[a-z].*\(/) && source[line] !~ /;$/) {
            name = source[line]
            sub(/\(.*/, "", name)
            sub(/.*[ *]/, "", name)
        }
        if (!counted[line]) continue
        all++
        hit += run[line]
        full += whole[line]
        if (whole[line]) continue
        text = source[line]
        gsub(/^ +| +$/, "", text)
        reason = reasons[name ": " text]
        used[name ": " text] = 1
        if (run[line] && !reason) parts++
        if (!run[line] && !reason) nameless++
        printf "%s %5d: %s: %s%s\n", run[line] ? "*" : " ", line, name, text, reason ? "  # " reason : ""
    }
    for (r in reasons) if (!used[r]) print "no longer needed in .ci/uncovered: " r
    printf "%.2f %% of %d lines, %.2f %% run in all their parts; %d never run and not named, %d in part\n", 100 * hit / all, all, 100 * full / all, nameless, parts
    exit hit < 0.95 * all || nameless > 0
}
