#!/usr/bin/env bash
# The manual pages are well formed, know every verb and option of the programs, every kind of event and every series and no other, and the pages made from the
# table of configuration keys are up to date (tools/config_pages makes them).
set -euo pipefail
command -v mandoc >/dev/null || { echo "skipped: mandoc is not installed"; exit 77; }
root=$1 build=$2
export ASAN_OPTIONS=detect_leaks=0
for page in "$root"/docs/man/*.[1-8]; do
    # cross-references are looked up among installed pages, and these are not; lines are as wide as everywhere in the tree
    problems=$(mandoc -T lint -W style "$page" | grep -vE 'referenced manual not found|longer than 80 bytes|Mdocdate missing|operating system explicitly' || true)
    [ -z "$problems" ] || { echo "$problems"; exit 1; }
done
diff "$root/etc/triaged.conf" <("$root/tools/config_pages" "$build/triaged" conf) || { echo "etc/triaged.conf: make it again"; exit 1; }
diff "$root/docs/man/triaged.conf.5" <("$root/tools/config_pages" "$build/triaged" man) || { echo "triaged.conf.5: make it again"; exit 1; }
verbs() { "$build/$1" --help | sed -nE 's/^  ([a-z]+) .*/\1/p' | sort; }
paged() { sed -nE 's/^\.It Cm ([a-z]+).*/\1/p' "$root/docs/man/$1" | sort; }
diff <(verbs triagectl) <(paged triagectl.8) || { echo "triagectl --help and triagectl.8 name different verbs"; exit 1; }
for verb in $(verbs triaged); do # the synopsis names every verb of the program, and the program every verb of the synopsis
    grep -qE "^\.Cm $verb\$" "$root/docs/man/triaged.8" || { echo "triaged.8 does not know the verb $verb"; exit 1; }
done
for verb in $(sed -n '/SYNOPSIS/,/DESCRIPTION/s/^\.Cm //p' "$root/docs/man/triaged.8" | grep -v summary); do
    verbs triaged | grep -qx "$verb" || { echo "triaged does not know the verb $verb of its page"; exit 1; }
done
for option in $("$build/triaged" --help | grep -oE '\-\-[a-z-]+' | sort -u); do
    grep -qE "Fl -${option#--}\b" "$root/docs/man/triaged.8" || { echo "triaged.8 does not know $option"; exit 1; }
done
events() { # name and meaning of every kind of event in the code
    sed -z 's/\\ *\n//g' "$root/daemon/log.h" | grep -oE 'X\([A-Z_]+, "[a-z-]+", +"[^"]+"' | sed -E 's/.*, "([a-z-]+)", +"(.*)"$/\1 \2/'
}
diff <(events) <(awk '/^\.Sh/ { inside = $2 == "LOG" } inside && name { print name, $0; name = "" } inside && /^\.It Li [a-z-]+$/ { name = $3 }' \
    "$root/docs/man/triaged.8") || { echo "triaged.8 and daemon/log.h differ in the kinds of events"; exit 1; }
series() { # name and kind of every series in the code; a histogram has a function of its own
    grep -ohE '"triage_[a-z0-9_]+", +"(counter|gauge|info)"' "$root/daemon/openmetrics.c" | sed -E 's/"(.*)", +"(.*)"/\1 \2/'
    sed -nE 's/.*write_histogram\(out, "([a-z_]+)".*/\1 histogram/p' "$root/daemon/openmetrics.c"
}
diff <(series | sort) <(sed -nE 's/^\.It Li (triage_[a-z0-9_]+) No \((.*)\)$/\1 \2/p' "$root/docs/man/triagectl.8" | sort) ||
    { echo "triagectl.8 and daemon/openmetrics.c differ in the series"; exit 1; }
codes() { sed -n '/EXIT STATUS/,/^\.El/s/^\.It \([0-9]*\)$/\1/p' "$root/docs/man/$1"; }
diff <(codes triaged.8) <(sed -nE 's/^ *EXIT_[A-Z]+ = ([0-9]+),.*/\1/p' "$root/daemon/exits.h")
diff <(codes triagectl.8) <(sed -nE 's/^ *PROTO_EXIT_[A-Z_]+ = ([0-9]+),.*/\1/p' "$root/daemon/proto.h")
echo "$(ls "$root"/docs/man | wc -l) pages"
