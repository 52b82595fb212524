#!/usr/bin/env bash
# Monitoring: every series by an independent parser and against `status`, readiness with its reasons, and the port's manners.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 120
port=$((20000 + RANDOM % 20000))
configure a "
[metrics]
port = $port"
printf 'id_str,file_loc\nabsent,nowhere.png\n' >"$folder/survey/absent.csv"
import a
import a "$folder/survey/absent.csv"
start a
page() { # PATH: status and body
    /usr/bin/python3 - "$port" "$1" <<'PYTHON'
import sys, urllib.error, urllib.request
try:
    answer = urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}{sys.argv[2]}", timeout=30)
except urllib.error.HTTPError as error:
    answer = error
print(answer.status, answer.headers["Content-Type"])
print(answer.read().decode(), end="")
PYTHON
}
ready a
platform a
wait_until 120 status_is a '.champion > 0 and .votes.applied > 100 and .galaxies.bad == 1 and .galaxies.embedded == 120'
kill -TERM "$platform" && wait "$platform" 2>/dev/null || true
settled() { status_is a '.cycle.step == "idle" and .votes.waiting == 0'; }
wait_until 60 settled
ctl a pause >/dev/null
page /metrics >"$folder/page" || fail "no page"
[ "$(head -1 "$folder/page")" = "200 application/openmetrics-text; version=1.0.0; charset=utf-8" ] || fail "$(head -1 "$folder/page")"
ctl a --json status >"$folder/status.json"
ctl a metrics >"$folder/text" || fail "triagectl metrics"
/usr/bin/python3 - "$folder" <<'PYTHON' || fail "the series"
import json, math, sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse

folder = sys.argv[1]
status = json.load(open(f"{folder}/status.json"))
text = open(f"{folder}/page").read().split("\n", 1)[1]
value, kind = {}, {}
for page in (text, open(f"{folder}/text").read()):
    for family in parse(page):
        assert family.documentation, family.name
        kind[family.name] = family.type
        for sample in family.samples:
            assert not {"galaxy", "id", "voter", "user"} & set(sample.labels), sample
            value[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
one = lambda name, **labels: value[name, tuple(sorted(labels.items()))]
assert one("triage_votes_ingested_total", source="postgres") == status["votes"]["applied"] > 100
assert one("triage_pool_size", state="all") == 121 and one("triage_pool_size", state="embedded") == 120
assert one("triage_pool_size", state="bad") == one("triage_bad_images_total", reason="absent") == 1
assert sum(one("triage_queue_depth", stream=s) for s in ("active", "random", "pinned")) == status["queue_length"]
assert one("triage_champion") == status["champion"] and one("triage_cycles_total") == status["cycle"]["number"]
assert one("triage_publish_seq") == status["feed"]["seq"] and one("triage_db_up") == one("triage_worker_up") == 1
assert one("triage_prediction_seconds_count") >= 1 and one("triage_predictions_total") >= 12
assert one("triage_prediction_seconds_bucket", le="+Inf") == one("triage_prediction_seconds_count")
assert one("triage_decode_seconds_count") >= 1 and one("triage_decode_seconds_sum") > 0
assert 0 < one("triage_coverage_80") <= 1 and 0 <= one("triage_calibration_ece") < 1
assert 0 < one("triage_holdout_brier", stream="random") < 2 and one("triage_train_loss") > 0
assert one("triage_train_last_success_timestamp_seconds") > one("triage_start_timestamp_seconds") > 1.7e9
assert one("triage_vote_cursor_xid") > 0 and not math.isnan(one("triage_score_age_seconds"))
assert kind["triage_votes_ingested"] == "counter" and kind["triage_prediction_seconds"] == "histogram"
assert one("triage_build_info", version=status["version"], schema=status["schema"]["name"], backend="cpu") == 1
# The list of ecosystem practice: nothing of it may be missing. (Memory of a GPU is shown where there is one.)
for family in ("votes_ingested vote_ingest_lag_seconds vote_cursor_xid predictions prediction_seconds decode_seconds bad_images "
               "pool_size queue_depth queue_oldest_seconds score_age_seconds publish_seq publish_dropped snapshot_requests "
               "subscriber_lag train_last_success_timestamp_seconds train_loss calibration_ece coverage_80 holdout_brier db_up "
               "build").split():
    assert f"triage_{family}" in kind, family
feed = status["feed"]
assert one("triage_snapshot_requests_total") >= 1 and one("triage_publish_dropped_total") == feed["unsent"] + feed["gaps"]
lags = {labels: lag for (name, labels), lag in value.items() if name == "triage_subscriber_lag"}
assert len(lags) == len(feed["subscribers"]) >= 1, (lags, feed["subscribers"])
for row in feed["subscribers"]:
    assert lags[("key", row["key"]), ("subscriber", row["name"])] <= feed["seq"]
print(len(kind), "series")
PYTHON

# Ready, then not, with the reason.
is() { # PATH STATUS [JQ-CONDITION]
    local answer
    answer=$(page "$1")
    [[ $answer == "$2 "* ]] && { [ -z "${3:-}" ] || tail -1 <<<"$answer" | jq -e "$3" >/dev/null; }
}
[ "$(page /livez)" = "$(printf '200 text/plain; charset=utf-8\nthe loop turns')" ] || fail "livez: $(page /livez)"
is /readyz 200 '.ready == true and .reasons == []' || fail "readyz: $(page /readyz)"
[ "$(ctl a ready)" = ready ] || fail "not ready: $(ctl a ready)"
because() { is /readyz 503 ".ready == false and (.reasons | tostring | test(\"$1\"))"; } # WORDS
recovered() { is /readyz 200; }
server=$(head -1 "$folder/a/postgres/data/postmaster.pid")
mapfile -t server_processes < <(ps -o pid= --ppid "$server"; echo "$server")
kill -STOP "${server_processes[@]}" # it answers nobody, and its sockets stay open
wait_until 60 because database
for _ in $(seq 40); do because database || fail "ready while the database answers nobody: $(page /readyz)"; done
kill -CONT "${server_processes[@]}"
wait_until 60 recovered

# Without writes votes wait, and how long they have been waiting goes on to be seen.
sql a "ALTER SYSTEM SET default_transaction_read_only = on"
sql a "SELECT pg_reload_conf()" >/dev/null
wait_until 60 because "takes no writes"
all_the_same() { PGOPTIONS="-c default_transaction_read_only=off" sql a "$1"; }
all_the_same "INSERT INTO triage.vote (classification, question, answer, id_str)
              SELECT 900000001, 'smooth-or-featured', 'smooth', min(id_str) FROM triage.galaxy"
wait_until 60 status_is a '.votes.lag_s > 2'
wait_until 60 because "votes wait for"
all_the_same "ALTER SYSTEM RESET default_transaction_read_only"
sql a "SELECT pg_reload_conf()" >/dev/null
wait_until 60 status_is a '.votes.lag_s == 0'
wait_until 60 recovered

# Votes that no ranking knows of, for longer than the limit.
ctl a resume >/dev/null
wait_until 60 settled
sed -i '/^\[cycle\]/a late_s = 1' "$folder/a.conf"
sed -i 's/^votes_min *=.*/votes_min = 100000/; s/^wait_ms *=.*/wait_ms = 3600000/' "$folder/a.conf"
ctl a reload >/dev/null || fail "reload"
sql a "INSERT INTO triage.vote (classification, question, answer, id_str)
       SELECT 900000002, 'smooth-or-featured', 'smooth', min(id_str) FROM triage.galaxy"
wait_until 60 because "waiting for a ranking"
ctl a train now >/dev/null
wait_until 60 recovered

# Whatever else is asked for is refused in words; the daemon goes on.
is /nothing 404 || fail "404"
ask() { # BYTES: the first line of the answer
    printf '%b' "$1" | timeout 30 /usr/bin/python3 -c '
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
    s.sendall(sys.stdin.buffer.read())
    print(s.makefile("rb").readline().decode().strip())' "$port"
}
[ "$(ask 'POST /metrics HTTP/1.1\r\n\r\n')" = "HTTP/1.1 405 Method Not Allowed" ] || fail "POST: $(ask 'POST /metrics HTTP/1.1\r\n\r\n')"
[ "$(ask 'nonsense\r\n\r\n')" = "HTTP/1.1 400 Bad Request" ] || fail "nonsense"
[ "$(ask "GET /$(printf 'x%.0s' $(seq 5000)) HTTP/1.1\r\n\r\n" 2>/dev/null || true)" != "HTTP/1.1 200 OK" ] || fail "too long"
for _ in $(seq 12); do # silent clients take places, and are put out
    # shellcheck disable=SC2034
    exec {silent}<>"/dev/tcp/127.0.0.1/$port"
done
wait_until 60 recovered
printf -v hex "%04X" "$port"
[ "$(awk -v end=":$hex" '$4 == "0A" && substr($2, length($2) - 4) == end { print $2 }' /proc/net/tcp /proc/net/tcp6)" = "0100007F:$hex" ] || fail "it listens elsewhere"
configure b "
[metrics]
port = $port"
import b
code=0
"$build/triaged" run --config "$folder/b.conf" 2>"$folder/b.err" || code=$?
[ $code = 69 ] && grep -q "cannot listen on 127.0.0.1:$port (metrics.port): Address already in use" "$folder/b.err" || fail "port in use: $code"
stop a
