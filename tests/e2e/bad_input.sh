#!/usr/bin/env bash
# Bad configuration and bad catalogues: the documented exit code, the line named, nothing left behind.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
export ASAN_OPTIONS=detect_leaks=0
configure() { printf '[instance]\nstate = %s/state\nschema = gz2_no_suffix\n%s\n' "$folder" "$1" >"$folder/triaged.conf"; }
run() { "$build/triaged" "$@"; }

configure $'[queue]\nsise = 3'
expect 78 "$folder/triaged.conf:5: unknown key queue.sise" run run -n --config "$folder/triaged.conf"
configure $'[nonsense]\na = 1'
expect 78 "triaged.conf:4: unknown section [nonsense]" run run -n --config "$folder/triaged.conf"
configure $'[queue]\nsize = many'
expect 78 "triaged.conf:5: queue.size = many is not a number" run run -n --config "$folder/triaged.conf"
configure $'[heads]\npasses = 31'
expect 78 "not a multiple of heads.count" run run -n --config "$folder/triaged.conf"
configure $'[heads]\nbatch = 4097' # the next one would be refused by every fit
expect 78 "heads.batch" run run -n --config "$folder/triaged.conf"
configure $'[heads]\nbatch = 4096'
run run -n --config "$folder/triaged.conf" >/dev/null || failures=$((failures + 1))
expect 64 "unexpected" run run --nonsense
for arguments in -h --help "finetune --help" "votes import -h" --version; do
    # shellcheck disable=SC2086
    run $arguments >"$folder/out" && grep -qE '^(usage: triaged |triaged [0-9])' "$folder/out" || { echo "FAILED: triaged $arguments" && failures=$((failures + 1)); }
done
configure $'run = somewhere'
expect 78 "instance.run = somewhere must be an absolute path" run run -n --config "$folder/triaged.conf"
configure $'[images]\nfolders = /data, images'
expect 78 "images.folders: images must be an absolute path" run run -n --config "$folder/triaged.conf"
configure $'[score]\nquestions = colour'
for check in -n ""; do
    # shellcheck disable=SC2086
    expect 78 "has no question 'colour'" run run $check --config "$folder/triaged.conf"
done
configure ''
run run -n --config "$folder/triaged.conf" >"$folder/printed.conf"
run run -n --config "$folder/printed.conf" >"$folder/again.conf"
cmp "$folder/printed.conf" "$folder/again.conf" || failures=$((failures + 1))
configure $'[database]\nurl = postgresql://triage:hunter2@db.example/sky'
run run -n --config "$folder/triaged.conf" >"$folder/printed.conf"
! grep -q hunter2 "$folder/printed.conf" && grep -q '^url = .*host=db.example' "$folder/printed.conf" || failures=$((failures + 1))
run run -n --config "$folder/printed.conf" >/dev/null || failures=$((failures + 1))
configure ''
sed 's/^schema = .*/schema = no_such_tree/' "$folder/triaged.conf" >"$folder/treeless.conf"
expect 78 "no_such_tree" run run --config "$folder/treeless.conf" # a code with which systemd does not start it again
expect 78 "no_such_tree" run run -n --config "$folder/treeless.conf"
printf '[schema]\nname = half\n' >"$folder/half.ini"
sed "s|^schema = .*|schema = $folder/half.ini|" "$folder/triaged.conf" >"$folder/treeless.conf"
expect 78 "half.ini" run run --config "$folder/treeless.conf"

catalogue() { printf '%b' "$1" >"$folder/catalogue.csv"; }
import() { "$build/triaged" import --config "$folder/triaged.conf" "$folder/catalogue.csv"; }
catalogue 'id_str,ra\na,1\n'
expect 65 "catalogue.csv:1: " import
grep -q "file_loc" "$folder/err" || failures=$((failures + 1))
catalogue 'id_str,file_loc\na,1.png\nb,2.png\na,3.png\n'
expect 65 "catalogue.csv:4: " import
catalogue 'id_str,file_loc,ra,dec\na,1.png,12,0\nb,2.png,nan,0\n'
expect 65 "catalogue.csv:3: " import
catalogue 'id_str,file_loc,bar_yes\na,1.png,inf\n'
expect 65 "catalogue.csv:2: " import
expect 65 "nothing was imported" import
[ ! -e "$folder/state" ] || { echo "FAILED: a refused catalogue left a state folder"; failures=$((failures + 1)); }
[ $failures -eq 0 ] && echo "all bad inputs were refused as documented"
exit $((failures > 0))
