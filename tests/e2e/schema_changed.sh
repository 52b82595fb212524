#!/usr/bin/env bash
# A decision tree that changed under a pool, a database or a model is refused with exit code 78 and both hashes; nothing is
# changed by the attempt.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
cp "$schema" "$folder/tree.ini"
schema=$folder/tree.ini
survey 60
configure a
import a
start a
ready a
platform a
wait_until 60 status_is a '.champion > 0'
kill -TERM "$platform" && wait "$platform"
old=$(ctl a --json status | jq -r .schema.hash)
stop a

sed -i 's/^answers = round, in-between, cigar$/answers = round, in-between, cigar-like/' "$folder/tree.ini"
new=$("$build/triaged" model summary --config "$folder/a.conf" --json 2>/dev/null | jq -r '.schema_hash // empty')
refused() { # WHAT COMMAND...
    local what=$1 code=0
    shift
    timeout 60 "$@" >"$folder/said" 2>&1 || code=$?
    [ $code -eq 78 ] || fail "$what: ended with $code, not 78: $(cat "$folder/said")"
    grep -qF "$old" "$folder/said" || fail "$what: the old hash is not named: $(cat "$folder/said")"
    [ "$(grep -oE '\b[0-9a-f]{32}\b' "$folder/said" | sort -u | wc -l)" -eq 2 ] || fail "$what: two hashes are not named: $(cat "$folder/said")"
    [ -z "$new" ] || grep -qF "$new" "$folder/said" || fail "$what: the new hash is not named"
}
refused "pool" "$build/triaged" run --config "$folder/a.conf"
mv "$folder/a/pool" "$folder/a/pool.old" # the pool can be made again, so the database must refuse too
refused "database" "$build/triaged" run --config "$folder/a.conf"
mv "$folder/a/postgres" "$folder/a/postgres.old" # and so can the database: then the models must
refused "models" "$build/triaged" run --config "$folder/a.conf"
[ ! -e "$folder/a/postgres" ] || fail "a database was made before the models were looked at"
mv "$folder/a/postgres.old" "$folder/a/postgres"
refused "import" "$build/triaged" import --config "$folder/a.conf" "$folder/survey/catalog.csv"
rm -rf "$folder/a/pool" && mv "$folder/a/pool.old" "$folder/a/pool"
refused "model" "$build/triaged" evaluate --config "$folder/a.conf" --oracle "$folder/survey/truth.csv"

sed -i 's/cigar-like$/cigar/' "$folder/tree.ini"

# The same tree, but a network whose embeddings are shorter than the champion's heads read.
network=$("$build/triaged" model summary --config "$folder/a.conf" --json | jq -r .network)
mv "$folder/a/pool" "$folder/a/pool.old"
code=0
{ cat "$folder/a.conf"; printf '[trunk]\nnetwork = walmsley2020\n'; } >"$folder/other.conf"
timeout 60 "$build/triaged" run --config "$folder/other.conf" >"$folder/said" 2>&1 || code=$?
[ $code -eq 78 ] || fail "another network: ended with $code, not 78: $(cat "$folder/said")"
grep -qF "was fitted to embeddings of the network $network, trunk.network is walmsley2020" "$folder/said" || fail "the networks are not named: $(cat "$folder/said")"
rm -rf "$folder/a/pool" && mv "$folder/a/pool.old" "$folder/a/pool"

start a
ready a
[ "$(ctl a --json status | jq -r .schema.hash)" = "$old" ] || fail "the old tree has another hash now"
status_is a '.champion > 0 and .galaxies.total == 60' || fail "the attempts changed something"
applied=$(ctl a --json status | jq .votes.applied)
[ "$applied" -gt 0 ] || fail "no votes to keep"
stop a

# a key that is fixed with the pool: what the message says keeps the votes, and the rest is made again
sed -i '/^\[trunk\]/a views = 2' "$folder/a.conf"
expect 78 "trunk views 1, the configuration says 2: set it as it was, or stop the service and move pool and models" \
    "$build/triaged" run --config "$folder/a.conf"
[ $failures -eq 0 ] || exit 1
mkdir "$folder/away" && mv "$folder/a/pool" "$folder/a/models" "$folder/away"
start a
ready a
status_is a ".votes.applied == $applied" || fail "votes were lost"
wait_until 60 status_is a '.galaxies.embedded == 60 and .champion > 0'
stop a
echo "a changed tree is refused with both hashes"
