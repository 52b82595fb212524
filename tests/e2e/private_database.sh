#!/usr/bin/env bash
# The private database: made whole or not at all, whatever ends its making; by the server version that made it ever after; its log
# has a limit, and a start that fails names the cause that stands there. And a start ends within 10 s of SIGTERM while a database makes it wait: one that is being made, one that holds the
# lock of the migrations, one that accepts connections and says nothing.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 40
configure a
data=$folder/a/postgres/data
being_made() { { [ -e "$data.new/PG_VERSION" ] && [ ! -e "$data.new/left" ]; } || [ -e "$data" ]; }
for signal in KILL TERM; do
    start a
    wait_until 30 being_made
    [ ! -e "$data" ] || fail "the folder of the database is there before it is complete"
    ends a $signal "the database is being made"
    [ ! -e "$data" ] || fail "a half made database is taken for one"
    [ ! -e "$data.new" ] || touch "$data.new/left"
done
import a # makes it whole
[ -e "$data/PG_VERSION" ] || fail "not made: $(ls "$folder/a/postgres")"

head -c 9000000 /dev/zero | tr '\0' 'x' >>"$folder/a/postgres/log"
printf "\nthe last line\n" >>"$folder/a/postgres/log"
start a
ready a
short() { [ "$(stat -c %s "$folder/a/postgres/log")" -lt 1000000 ] && grep -qa "^the last line$" "$folder/a/postgres/log.1"; }
wait_until 20 short
stop a

cp "$data/PG_VERSION" "$folder/version"
echo 9 >"$data/PG_VERSION"
code=0
"$build/triaged" run --config "$folder/a.conf" 2>"$folder/said" || code=$?
[ $code -ne 0 ] || fail "a server of another version was started"
grep -q "made by PostgreSQL 9, which is not installed: install postgresql-9" "$folder/said" || fail "$code: $(cat "$folder/said")"
cp "$folder/version" "$data/PG_VERSION"
start a
ready a
stop a

mkdir "$folder/wal" && mv "$data"/pg_wal/0* "$folder/wal"
code=0
"$build/triaged" run --config "$folder/a.conf" 2>"$folder/said" || code=$?
[ $code -eq 69 ] || fail "without its write-ahead log the private database ended with $code"
grep -q "log says: .*could not locate a valid checkpoint record" "$folder/said" || fail "the cause is not named: $(cat "$folder/said")"
mv "$folder"/wal/0* "$data/pg_wal"
start a
ready a
stop a

if [ "$(id -u)" = 0 ]; then # its log is in a folder of the database's user, who gains nothing by a link there
    mv "$folder/a/postgres/log" "$folder/log.saved"
    (umask 077 && touch "$folder/victim")
    ln -s "$folder/victim" "$folder/a/postgres/log"
    "$build/triaged" run --config "$folder/a.conf" 2>"$folder/said" && fail "a log that is a link was written to"
    [ "$(stat -c %u:%s "$folder/victim")" = 0:0 ] || fail "a link gave a file of root's away"
    grep -q "postgres/log" "$folder/said" || fail "unclear: $(cat "$folder/said")"

    # nor does root take a service's database away from the service's user
    chown postgres "$folder/a"
    before=$(stat -c %U:%n "$folder/a"/* "$folder/a"/postgres/*)
    code=0
    "$build/triaged" import --config "$folder/a.conf" "$folder/survey/catalog.csv" 2>"$folder/said" || code=$?
    [ $code -eq 78 ] || fail "root worked in the folder of another user: $code"
    grep -q "belongs to the user postgres: .*runuser -u postgres -- triaged" "$folder/said" || fail "unclear: $(cat "$folder/said")"
    [ "$(stat -c %U:%n "$folder/a"/* "$folder/a"/postgres/*)" = "$before" ] || fail "root took the folder over"
fi

server start
configure b "[database]
url = $server_url"
psql -X -q -d "$server_url" -c "SELECT pg_advisory_lock(7214300), pg_sleep(120)" >/dev/null 2>&1 &
pids+=($!)
locks() { [ "$(psql -X -A -t -d "$server_url" -c "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND $1")" = 1 ]; }
wait_until 20 locks granted
start b
wait_until 20 locks "NOT granted"
ends b TERM "another process migrates the database"

/usr/bin/python3 - >"$folder/port" <<'PYTHON' &
import socket
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(8)
print(listener.getsockname()[1], flush=True)
accepted = []
while True:
    accepted.append(listener.accept())
    print("accepted", flush=True)
PYTHON
pids+=($!)
wait_until 10 test -s "$folder/port"
configure c "[database]
url = host=127.0.0.1 port=$(head -1 "$folder/port") user=triage dbname=postgres"
start c
wait_until 20 grep -q accepted "$folder/port"
ends c TERM "the database says nothing"
server stop
echo "the private database is whole, and no database holds up a stop"
