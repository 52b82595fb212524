#!/usr/bin/env bash
# Lines of the log: JSON with a kind of event that the manual lists, or text that ends in one.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
sed -n 's/^    X([A-Z_]*, "\([a-z-]*\)",.*/\1/p' "$root/daemon/log.h" | sort >"$folder/kinds"
sed -n '/^\.Sh LOG/,/^\.El/s/^\.It Li //p' "$root/docs/man/triaged.8" | sort | diff "$folder/kinds" - || fail "triaged(8) lists other kinds of events"
[ "$(wc -l <"$folder/kinds")" -gt 40 ] || fail "kinds of events"
while read -r kind; do
    name=EVENT_$(tr a-z- A-Z_ <<<"$kind")
    grep -q "$name" "$root"/daemon/*.c || fail "nothing is ever logged as $kind"
done <"$folder/kinds"
survey 60
for format in json text; do
    configure $format "
[log]
format = $format
[feed]
publish = ipc://$folder/$format"$'\e'"[1m.publish"
    import $format
    : >"$folder/$format.log"
    start $format
    ready $format
    stop $format
done
jq -e -R 'fromjson | (.time | test("^2[0-9-]+T[0-9:.]+Z$")) and (.level | IN("info", "warning", "error")) and .pid > 1
    and (.who | IN("triaged", "worker")) and (.message | length > 0) and (.event | length > 0)' "$folder/json.log" >/dev/null ||
    fail "a line that is not JSON: $(cat "$folder/json.log")"
jq -r .event "$folder/json.log" | sort -u | comm -23 - "$folder/kinds" | grep . && fail "a kind that is not listed"
for kind in synced worker-ready ready stopping; do
    jq -r .event "$folder/json.log" | grep -qx $kind && grep -q "\[$kind\]$" "$folder/text.log" || fail "no line says $kind"
done
grep -qvE '^2[0-9-]+T[0-9:.]+Z (triaged|worker)\[[0-9]+\] .* \[[a-z-]+\]$' "$folder/text.log" && fail "a line of another form: $(cat "$folder/text.log")"
grep -q $'\e' "$folder/text.log" && fail "a name reaches the terminal as it is"
code=0
printf '[log]\nformat = xml\n' >"$folder/xml.conf"
"$build/triaged" run -n --config "$folder/xml.conf" >/dev/null 2>"$folder/err" || code=$?
[ $code = 78 ] && grep -q format "$folder/err" || fail "log.format = xml: $code, $(cat "$folder/err")"
echo "$(wc -l <"$folder/kinds") kinds of events"
