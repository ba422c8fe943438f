# First the reasons, "function: line # reason"; then gcov's "count:number:line", of several programs one after the other.
FILENAME ~ /uncovered$/ {
    if (match($0, / +# /)) reasons[substr($0, 1, RSTART - 1)] = substr($0, RSTART + RLENGTH)
    next
}
/^ *-: *0:Source:/ {
    file = $0
    sub(/.*Source:(\.\/)?/, "", file)
    ours = file ~ /^(keyauth|ext\/[a-z0-9]*)\.h$/
}
ours && match($0, /^ *[^:]+: *[0-9]+:/) {
    split(substr($0, 1, RLENGTH), field, ":")
    count = field[1]; number = field[2] + 0; text = substr($0, RLENGTH + 1)
    gsub(/ /, "", count)
    if (!number) next
    line = file ":" number
    if (number > last[file]) last[file] = number
    source[line] = text
    if (count == "-") next
    counted[line] = 1
    if (count !~ /^[#=]/) run[line] = 1
    if (count !~ /^[#=]/ && count !~ /\*/) whole[line] = 1
}
function look(file,    number, line, name, text, reason) {
    for (number = 1; number <= last[file]; number++) {
        line = file ":" number
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
        printf "%s %s: %s: %s%s\n", run[line] ? "*" : " ", line, name, text, reason ? "  # " reason : ""
    }
}
END {
    for (file in last) look(file)
    for (r in reasons) if (!used[r]) print "no longer needed in .ci/uncovered: " r
    printf "%.2f %% of %d lines, %.2f %% run in all their parts; %d never run and not named, %d in part\n", 100 * hit / all, all, 100 * full / all, nameless, parts
    exit hit < 0.95 * all || nameless > 0
}
