#!/usr/bin/env bash
# Random views kept apart: MC passes take turns at them, with stochastic depth of their own. The ranking is the same for any number
# of threads, and disagreement between views alone is information.
# shellcheck source=tests/support/daemon.sh
source "$1/tests/support/daemon.sh" "$1" "$2"
survey 300
views=$'dropout = 0\ncount = 1\npasses = 4\n[training]\ntrunk = off\naugmentation = w20\n[images]\nside = 48\n[queue]\nretire_votes = 1000\nduplicate_distance = 0'
with_views() { # NAME THREADS VIEWS DEPTH
    configure "$1" $'[heads]\n'"$views"
    sed -i "s/^threads = .*/threads = $2/; s/^calibration_images.*/&\nmc_views = $3\nmc_stochastic_depth = $4/" "$folder/$1.conf"
}
ranked() { status_is "$1" '.cycle.step == "idle" and .champion >= 1 and .galaxies.embedded == 300'; }
scores() { ctl "$1" --json queue | jq -c '[.entries[] | [.id, .score, .total, .expected]] | sort'; }
for setup in 'a 1 2 0.2' 'b 2 2 0.2' 'plain 1 1 0'; do
    # shellcheck disable=SC2086
    with_views $setup
    name=${setup%% *}
    import "$name" "$folder/survey/truth.csv"
    start "$name"
    ready "$name"
    wait_until 240 ranked "$name"
done
for name in a b plain; do scores "$name" >"$folder/$name.scores"; done
[ "$(jq length "$folder/a.scores")" = 12 ] || fail "no queue: $(cat "$folder/a.scores")"
cmp "$folder/a.scores" "$folder/b.scores" || fail "two threads rank otherwise than one"
jq -e 'all(.[2] == .[3])' "$folder/plain.scores" >/dev/null || fail "one view without dropout cannot disagree: $(cat "$folder/plain.scores")"
jq -e 'all(.[2] > .[3])' "$folder/a.scores" >/dev/null || fail "views that disagree give no information: $(cat "$folder/a.scores")"
for name in a b plain; do stop "$name"; done

# A pool keeps as many views as it was made for; impossible numbers are refused before anything starts.
refused() { # PATTERN LINE
    sed "s/^$(cut -d= -f1 <<<"$2")=.*/$2/" "$folder/a.conf" >"$folder/x.conf"
    ! "$build/triaged" run --config "$folder/x.conf" >"$folder/x.out" 2>&1 || fail "$2 was taken"
    grep -q "$1" "$folder/x.out" || fail "$2: $(cat "$folder/x.out")"
}
refused 'heads.passes = 4 is not a multiple of trunk.mc_views = 3' 'mc_views = 3'
refused 'needs several views' 'mc_views = 1'
refused 'embedding inputs' 'mc_views = 4'
echo "views: all passed"
