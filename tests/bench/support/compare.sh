#!/usr/bin/env bash
# Sourced by the benches that compare with PyTorch and ONNX Runtime: finds or makes the peers' Python, asks ours and theirs in
# turns, keeps the best answer to every question, and makes rows. Throughput only grows when nothing disturbs, so the best of
# several turns is what a quiet machine would give.
#
# The peers come from PyPI (2 to 6 GB, once) into a folder of their own under ~/.cache; pip's own settings
# (PIP_EXTRA_INDEX_URL, PIP_INDEX_URL) choose another index, for example one with CPU builds of PyTorch.
# TRIAGE_BENCH_PYTHON names an interpreter that has torch, timm, onnx, onnxscript and onnxruntime already.
# Nothing is waited for without a limit: a peer that does not answer in time is asked nothing more.
support=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$support/../../.." && pwd)
folder=${XDG_CACHE_HOME:-$HOME/.cache}/galaxy-triage-bench
bin=${1:?folder of the programs} peers_python='' peers_pid=''
install_s=1800 answer_s=600 # compiling PyTorch's training step takes minutes
declare -A best

progress() { echo "bench: $((SECONDS / 60)):$(printf %02d $((SECONDS % 60))) $*" >&2; }

has_peers() { "$1" -c 'import torch, timm, onnx, onnxscript, onnxruntime' 2>/dev/null; }

make_peers() { # prints why there are none and fails
    mkdir -p "$folder"
    local free_gb=$(($(df --output=avail -B1 "$folder" | tail -1) / 1000000000))
    echo "bench: $free_gb GB free in $folder" >&2
    [ "$free_gb" -ge 12 ] || { echo "12 GB of free disk are needed in $folder, $free_gb GB are there" && return 1; }
    "$root/tools/install_packages" --bench >&2 || { echo "python3-venv cannot be installed" && return 1; }
    progress "installing the peers into $folder, minutes; once"
    python3 -m venv "$folder/venv" && timeout "$install_s" "$folder/venv/bin/pip" install -q --disable-pip-version-check --retries 1 \
        torch timm onnx onnxscript onnxruntime >&2 || { echo "pip cannot install the peers in $install_s s (no network?)" && return 1; }
}

find_peers() {
    local reason
    if [ -n "${TRIAGE_BENCH_PYTHON:-}" ]; then
        if has_peers "$TRIAGE_BENCH_PYTHON"; then
            peers_python=$TRIAGE_BENCH_PYTHON
        else
            echo "bench: no peers: TRIAGE_BENCH_PYTHON=$TRIAGE_BENCH_PYTHON lacks a module" >&2
        fi
    elif has_peers "$folder/venv/bin/python" || reason=$(make_peers); then
        peers_python=$folder/venv/bin/python
    else
        echo "bench: no peers: $reason; our figures follow without them" >&2
    fi
}

peers_open() { # THREADS
    [ -n "$peers_python" ] || return 0
    coproc PEERS { exec "$peers_python" "$support/peers.py" "$1" 2>/dev/null; }
    peers_pid=$PEERS_PID
}

peers_close() {
    [ -n "$peers_pid" ] || return 0
    kill "$peers_pid" 2>/dev/null || true
    wait "$peers_pid" 2>/dev/null || true
    peers_pid=''
}

keep() { # KEY NUMBER: the best so far
    best[$1]=$(awk -v have="${best[$1]:-0}" -v now="$2" 'BEGIN { print (now + 0 > have + 0 ? now : have) }')
}

ours() { # KEY ARGUMENTS of bench_compute
    local answer
    progress "ours: ${*:2}"
    answer=$("$bin/bench_compute" "${@:2}")
    keep "$1" "${answer%%$'\n'*}"
}

theirs() { # KEY QUESTION...; a question without an answer is not asked again
    local answer
    [ -n "$peers_pid" ] && [ "${best[$1]:-}" != none ] || return 0
    progress "the peers: ${*:2}"
    echo "${@:2}" >&"${PEERS[1]}"
    read -r -t "$answer_s" answer <&"${PEERS[0]}" || { answer="- the peer has died or thinks for more than $answer_s s" && peers_close; }
    case $answer in
    -*) best[$1]=none && echo "bench: no answer to '${*:2}': ${answer#- }" >&2 ;;
    *) keep "$1" "$answer" ;;
    esac
}

better() { # KEY KEY...: the best of several
    local key value=0
    for key in "$@"; do
        [ "${best[$key]:-none}" = none ] || value=$(awk -v a="$value" -v b="${best[$key]}" 'BEGIN { print (b + 0 > a + 0 ? b : a) }')
    done
    echo "$value"
}

error_of() { # KEY whose best answer is the inverse of a relative error; 1 without one
    awk -v one="$(better "$1")" 'BEGIN { print one ? 1 / one : 1 }'
}

must_agree() { # KEY: ends the bench where a peer that opened our weights is more than 1e-4 off
    awk -v error="$(error_of "$1")" 'BEGIN { exit !(error <= 1e-4) }' ||
        { echo "bench: with our weights the peer is $(error_of "$1") off, 1e-4 is allowed" >&2 && exit 1; }
}

row() { # FIGURE VALUE UNIT [PEER PEER_VALUE]: one line of JSON; more is better
    jq -nc --arg figure "$1" --argjson value "$2" --arg unit "$3" --arg peer "${4:-}" --argjson theirs "${5:-0}" \
        'if $theirs > 0 then {figure: $figure, value: $value, unit: $unit, peer: $peer, peer_value: $theirs,
                              ratio: ($value / $theirs * 1000 | round / 1000)}
         else {figure: $figure, value: $value, unit: $unit, peer: null, peer_value: null, ratio: null} end'
}
