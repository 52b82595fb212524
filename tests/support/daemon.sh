# shellcheck shell=bash
# Sourced by the scripts of e2e/ with the source and the build folder as arguments: a folder of its own, a small simulated
# survey, daemons with their private databases, and waiting for conditions. Everything started here is stopped at the end.
set -euo pipefail
root=$1 build=$2
export ASAN_OPTIONS=detect_leaks=1 LSAN_OPTIONS=suppressions=$root/tests/lsan.supp:print_suppressions=0
folder=$(mktemp -d /tmp/triage-test.XXXXXX)
chmod 0755 "$folder" # the private database has a user of its own when we are root
schema=$root/etc/schemas/gz2_no_suffix.ini
declare -A daemon=() # name -> pid
pids=()              # other processes to stop

stop_databases() { # of daemons that were killed
    local file pid
    for file in "$folder"/*/postgres/data/postmaster.pid; do
        [ -e "$file" ] || continue
        pid=$(head -1 "$file")
        kill -QUIT "$pid" 2>/dev/null || continue
        kill -CONT "$pid" 2>/dev/null || continue
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; pause; done
    done
}
clean_up() {
    local code=$?
    trap - EXIT
    if [ $code -ne 0 ] && [ $code -ne 77 ]; then tail -n 25 "$folder"/*.log 2>/dev/null || true; fi
    for pid in "${pids[@]}" "${daemon[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
    for pid in "${pids[@]}" "${daemon[@]}"; do wait "$pid" 2>/dev/null || true; done
    stop_databases
    rm -rf "$folder"
    exit $code
}
trap clean_up EXIT
pause() { read -rt 0.1 <> <(:) || true; }
fail() { echo "FAILED: $*" >&2 && exit 1; }
failures=0
expect() { # CODE TEXT COMMAND...: the command ends with CODE and says TEXT on standard error, or there is one failure more
    local code=$1 text=$2 got=0
    shift 2
    "$@" >"$folder/out" 2>"$folder/err" || got=$?
    if [ "$got" != "$code" ] || ! grep -qF -- "$text" "$folder/err"; then
        echo "FAILED: $* gave $got, wanted $code and '$text'; it said:"
        cat "$folder/err"
        failures=$((failures + 1))
    fi
}
wait_until() { # SECONDS COMMAND...
    local limit=$((SECONDS + $1))
    shift
    until "$@"; do
        [ $SECONDS -lt $limit ] || fail "did not happen in time: $*"
        pause
    done
}

survey() { # GALAXIES: folder/survey with catalog.csv and truth.csv
    "$build/triage-sim" survey --schema "$schema" --galaxies "$1" --side 32 --channels 1 --seed 1 --out "$folder/survey" 2>/dev/null
}
configure() { # NAME [LINES]: small and quick; the lines come last, so they win
    cat >"$folder/$1.conf" <<CONF
[instance]
name = $1
schema = $schema
state = $folder/$1
[images]
side = 32
[trunk]
side = 32
calibration_images = 8
[worker]
threads = 1
embed_chunk = 32
[heads]
count = 2
passes = 4
epochs_max = 20
[queue]
size = 12
retire_votes = 8
holdout_share = 0.3
[cycle]
votes_min = 150
wait_ms = 500
[votes]
poll_ms = 200
[feed]
security = plaintext
publish = ipc://$folder/$1.publish
snapshot = ipc://$folder/$1.snapshot
${2:-}
CONF
}
import() { "$build/triaged" import --config "$folder/$1.conf" "${2:-$folder/survey/catalog.csv}" "${@:3}" >>"$folder/$1.log" 2>&1; }
start() { # NAME
    "$build/triaged" run --config "$folder/$1.conf" >>"$folder/$1.log" 2>&1 &
    daemon[$1]=$!
}
ctl() { "$build/triagectl" --state "$folder/$1" "${@:2}"; }
status_is() { # NAME JQ-CONDITION
    local now
    now=$(ctl "$1" --json status 2>/dev/null) && jq -e "$2" <<<"$now" >/dev/null
}
worker_of() { # NAME: the pid of its worker, once there is one; a signal to anything else would hit the whole machine
    local pid
    wait_until 30 status_is "$1" '.worker.pid > 1 and .worker.state != "down"'
    pid=$(ctl "$1" --json status | jq -r .worker.pid)
    [[ $pid =~ ^[1-9][0-9]+$ ]] || fail "the worker of $1 has no pid but '$pid'"
    echo "$pid"
}
ready() { wait_until "${2:-60}" status_is "$1" .ready; }
gone() { # PID: ended, even if nobody has asked for its exit code yet
    [ ! -e "/proc/$1/stat" ] || [[ $(cut -d' ' -f3 "/proc/$1/stat" 2>/dev/null) == Z* ]]
}
stop() { # NAME: SIGTERM, and the exit code must be 0
    local code=0
    kill -TERM "${daemon[$1]}"
    wait "${daemon[$1]}" || code=$?
    unset "daemon[$1]"
    [ $code -eq 0 ] || fail "the daemon ended with $code"
}
ends() { # NAME SIGNAL WHILE: within 10 s
    local limit=$((SECONDS + 10)) pid=${daemon[$1]} code=0
    kill "-$2" "$pid"
    until gone "$pid"; do
        [ $SECONDS -le $limit ] || fail "still running 10 s after SIG$2 while $3"
        pause
    done
    wait "$pid" || code=$?
    unset "daemon[$1]"
    [ "$2" = KILL ] || [ $code -eq 0 ] || fail "ended with $code while $3"
    echo "ended while $3"
}
murder() { # NAME: SIGKILL
    kill -KILL "${daemon[$1]}"
    wait "${daemon[$1]}" 2>/dev/null || true
    unset "daemon[$1]"
}
url() { echo "host=$folder/$1/postgres/socket user=triage dbname=triage"; }
sql() { psql -X -A -t -q -d "$(url "$1")" -c "$2"; }
platform() { # NAME [OPTIONS]: volunteers; its pid in $platform
    "$build/triage-sim" platform --database "$(url "$1")" --publish "ipc://$folder/$1.publish" --snapshot "ipc://$folder/$1.snapshot" \
        --schema "$schema" --oracle "$folder/survey/truth.csv" --rate 60 --seed 3 --status "$folder/$1.json" "${@:2}" \
        >/dev/null 2>>"$folder/$1.log" &
    platform=$!
    pids+=("$platform")
}

# A PostgreSQL server of the test's own, for what happens when it goes away: server start | stop; its URL in $server_url.
server_bin=$(find /usr/lib/postgresql/*/bin -maxdepth 0 2>/dev/null | sort -V | tail -1)
server_url="host=$folder/server/socket user=triage dbname=postgres"
as_server() { # nobody may run PostgreSQL as root
    if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups env HOME=/ LC_ALL=C.UTF-8 "$@"; else "$@"; fi
}
server() {
    if [ ! -d "$folder/server" ]; then
        mkdir -p "$folder/server/socket"
        [ "$(id -u)" != 0 ] || chown -R postgres "$folder/server"
        as_server "$server_bin/initdb" -D "$folder/server/data" -U triage -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
        mkdir -p "$folder/server/postgres" && ln -s ../data "$folder/server/postgres/data" # stopped at the end like the others
    fi
    if [ "$1" = start ]; then
        (cd / && as_server "$server_bin/pg_ctl" -D "$folder/server/data" -l "$folder/server/log" -w -t 60 \
            -o "-k $folder/server/socket -c listen_addresses= -c fsync=off" start) >/dev/null
    else
        (cd / && as_server "$server_bin/pg_ctl" -D "$folder/server/data" -m immediate stop) >/dev/null
    fi
}
