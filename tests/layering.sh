#!/usr/bin/env bash
# A folder includes only what the arrows of ARCHITECTURE.md allow, each foreign API is used in one file only, no banned
# function is called, and the reference clients stay short enough to be read. Else tests/ and clients/ may do as they like.
# Usage: layering.sh ROOT [BUILD]. First proves on a planted tree that each kind of violation is found.
set -euo pipefail

# folder: folders it may include from (its own is always allowed). daemon/ctl speaks only the protocol.
declare -A may=(
    [base]="" [model]="base" [cpu]="model base" [gpu]="model base" [pool]="model base" [acquisition]="model base" [connectors]="model base"
    [daemon]="connectors acquisition pool cpu model base" [daemon/sim]="clients/c connectors model base daemon/exits.h"
    [daemon/ctl]="daemon/proto.h connectors/feed_keys.h base"
)
# foreign header: the files that include it, one each where it can be; a name that ends in / is a folder
declare -A only=(
    [xxhash.h]=base/hash.c [zlib.h]=base/hash.c [msgpack.h]=base/msgpack.c [zmq.h]=connectors/zmq_socket.c
    [oneapi/dnnl/dnnl.h]="cpu/net.c cpu/train_conv.c" [omp.h]="cpu/net.c cpu/train_conv.c"
    [libpq-fe.h]=connectors/database.c [sodium.h]=connectors/voter_key.c [png.h]=connectors/image_png.c [jpeglib.h]=connectors/image_jpeg.c [dlfcn.h]=daemon/backend.c
    [cublasLt.h]="gpu/gemm.h gpu/status.h" [cudnn.h]="gpu/convolution.h gpu/status.h" [nccl.h]="gpu/ranks.h gpu/status.h"
    [jansson.h]="model/safetensors.c connectors/vote_file.c daemon/"
)
# function: why it is banned
declare -A banned=(
    [strcpy]="no limit: snprintf or memcpy" [strcat]="no limit: snprintf" [sprintf]="no limit: snprintf" [vsprintf]="no limit: vsnprintf"
    [gets]="no limit: fgets" [strncpy]="may leave no end: snprintf" [strncat]="limit is easily wrong: snprintf" [strtok]="hidden state: strcspn"
    [atoi]="no errors: strtol" [atol]="no errors: strtol" [atoll]="no errors: strtoll" [atof]="no errors: strtod"
    [scanf]="no limit: strtol, strtod" [sscanf]="overflow is undefined: strtol, strtod" [fscanf]="no limit: strtol, strtod"
    [system]="a shell: posix_spawn" [popen]="a shell: posix_spawn" [rand]="not reproducible: base/philox.h" [srand]="not reproducible: base/philox.h"
    [drand48]="not reproducible: base/philox.h" [alloca]="no limit: an arena" [mktemp]="a race: mkstemp" [tmpnam]="a race: mkstemp"
    [localtime]="hidden state: localtime_r" [gmtime]="hidden state: gmtime_r" [ctime]="hidden state: strftime" [usleep]="wait for a condition: poll"
    [sleep]="wait for a condition: poll" [tempnam]="a race: mkstemp" [asctime]="hidden state: strftime" [random]="not reproducible: base/philox.h"
    [signal]="handlers are for sigaction; only SIG_IGN and SIG_DFL are fine" [dlopen]="libraries are linked" [dlsym]="libraries are linked"
    [gethostbyname]="hidden state: getaddrinfo" [vfork]="shares the stack: posix_spawn"
)
# Only daemon/ ends the process or speaks to the terminal.
declare -A daemon_only=([exit]="return a code" [abort]="return a code" [printf]="set a message" [fprintf]="set a message" [vprintf]="set a message" [puts]="set a message"
    [putchar]="set a message" [perror]="set a message" [syslog]="set a message" [err]="return a code")

# file: lines it may have
declare -A short=([clients/c/triage_feed.c]=300 [clients/python/triage_feed.py]=300)

strip() { # code without comments and strings, lines kept
    sed -E -e "s/'\\\\?\"'/' '/g" -e 's/"([^"\\]|\\.)*"/""/g' -e 's|//.*||' "$1" | awk '
        { line = $0; out = ""
          while (length(line)) {
              if (inside) { at = index(line, "*/"); if (!at) break; line = substr(line, at + 2); inside = 0 }
              else { at = index(line, "/*"); if (!at) { out = out line; break } out = out substr(line, 1, at - 1); line = substr(line, at + 2); inside = 1 } }
          print out }'
}

check_includes() { # FILE FOLDER
    local line number target allowed ok
    while IFS=: read -r number line; do
        target=${line#*\"} target=${target%%\"*} ok=0
        for allowed in $2 ${may[$2]}; do
            case "$allowed" in
            *.h) [ "$target" = "$allowed" ] && ok=1 ;;
            *) [ "${target%/*}" = "$allowed" ] && ok=1 ;;
            esac
        done
        [ $ok = 1 ] || echo "$1:$number: $2/ may not include $target (it may: $2 ${may[$2]})"
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*"' "$1" || true)
}

check_foreign() { # FILE ROOT
    local line number target file=${1#"$2/"}
    while IFS=: read -r number line; do
        target=${line#*<} target=${target%%>*}
        [ -z "${only[$target]:-}" ] || [[ " ${only[$target]} " == *" $file "* || " ${only[$target]} " == *" ${file%%/*}/ "* ]] || echo "$1:$number: <$target> belongs to ${only[$target]}"
    done < <(grep -nE '^[[:space:]]*#[[:space:]]*include[[:space:]]*<' "$1" || true)
}

check_calls() { # FILE FOLDER
    local words name number
    words=$(IFS='|' && echo "${!banned[*]}")
    [[ $1 == */daemon/backend.c ]] && words=${words/dlopen|/} words=${words/dlsym|/} # the one library that is loaded, not linked
    [[ $2 == daemon* ]] || words="$words|$(IFS='|' && echo "${!daemon_only[*]}")"
    while IFS=: read -r number name; do
        name=${name%%[[:space:](]*}
        echo "$1:$number: $name() is banned: ${banned[$name]:-${daemon_only[$name]:-}}"
    done < <(strip "$1" | sed -E -e 's/\bsignal\([A-Z]+, SIG_(IGN|DFL)\)//g' -e 's/(->|\.)[[:space:]]*[A-Za-z_]+[[:space:]]*\(/(/g' | grep -noE "\b($words)[[:space:]]*\(" | grep -vE ':(static|struct)' || true)
}

check_tree() { # ROOT: prints every violation
    local folder file lines
    for folder in base model cpu gpu pool acquisition connectors daemon daemon/sim daemon/ctl; do
        for file in "$1/$folder"/*.[ch] "$1/$folder"/*.cu; do
            [ -e "$file" ] || continue
            check_includes "$file" "$folder"
            check_foreign "$file" "$1"
            check_calls "$file" "$folder"
        done
    done
    for file in "${!short[@]}"; do
        [ -e "$1/$file" ] || continue
        lines=$(wc -l <"$1/$file")
        [ "$lines" -le "${short[$file]}" ] || echo "$1/$file:$lines: more than ${short[$file]} lines: a reference client is to be read whole"
    done
    while IFS= read -r file; do
        folder=${file%/*}
        [ -n "${may[$folder]+known}" ] || echo "$1/$file:1: $folder/ is no folder of ARCHITECTURE.md: add it there and here"
    done < <(cd "$1" && find . -mindepth 2 -name '*.[ch]' ! -path './tests/*' ! -path './clients/*' ! -path './build*' -printf '%P\n')
}

planted=$(mktemp -d)
trap 'rm -rf "$planted"' EXIT
for folder in "${!may[@]}"; do mkdir -p "$planted/$folder"; done
plant() { # FOLDER LINE EXPECTED(found|clean)
    local found
    mkdir -p "$planted/$1"
    printf '/* strcpy(a) in a comment is fine */\n\n%s\n' "$2" >"$planted/$1/x.c"
    found=$(check_tree "$planted")
    rm "$planted/$1/x.c"
    if [ "${3%:*}" = found ]; then
        local line=${3#found} && line=${line#:}
        [[ $found == "$planted/$1/x.c:${line:-3}: "* ]] || { echo "a violation was not found in $1: $2 ($found)"; exit 1; }
    else
        [ -z "$found" ] || { echo "not a violation: $found"; exit 1; }
    fi
}
plant base '#include "model/schema.h"' found
plant model '#include "cpu/net.h"' found
plant cpu '#include "pool/pool.h"' found
plant pool '#include "acquisition/select.h"' found
plant acquisition '#include "connectors/votes.h"' found
plant connectors '#include "daemon/log.h"' found
plant connectors '#include "pool/pool.h"' found
plant daemon/ctl '#include "daemon/daemon.h"' found
plant daemon/ctl '#include "model/schema.h"' found
plant daemon/sim '#include "daemon/run.h"' found
plant daemon '#include "gpu/backend.h"' found
plant tpu '    a = b;' "found:1"
plant gpu '#include "cpu/net.h"' found
plant gpu '#include <cudnn.h>' found
plant cpu '#include "gpu/net.h"' found
plant tests/unit '    strcpy(a, b);' clean
plant model '#include <zmq.h>' found
plant daemon '#include <dlfcn.h>' found
plant pool '#include <jansson.h>' found
plant connectors '#include <jansson.h>' found
plant daemon/ctl '#include <jansson.h>' clean
plant model '#include <math.h>' clean
plant model "    a = '\"'; strcpy(a, b); c = '\"';" found
plant cpu '#include "cpu/net.h"' clean
plant daemon/ctl '#include "daemon/proto.h"' clean
for name in "${!banned[@]}"; do plant daemon "    x = $name (a);" found; done
for name in "${!daemon_only[@]}"; do plant model "    $name(a);" found; done
plant daemon '    exit(1);' clean
plant daemon '    signal(SIGPIPE, SIG_IGN);' clean
plant model '    x = "strcpy(a)";' clean
plant model '    backend->exit(a);' clean
plant model '    snprintf(a, 1, "b");' clean

for file in "${!short[@]}"; do
    mkdir -p "$planted/${file%/*}"
    seq "${short[$file]}" >"$planted/$file"
    [ -z "$(check_tree "$planted")" ] || { echo "not a violation: $file has ${short[$file]} lines"; exit 1; }
    echo >>"$planted/$file"
    [[ $(check_tree "$planted") == "$planted/$file:$((short[$file] + 1)): "* ]] || { echo "$file is too long and was not found"; exit 1; }
    rm "$planted/$file"
done
for file in "${!short[@]}"; do [ -e "$1/$file" ] || { echo "there is no $file"; exit 1; }; done

violations=$(check_tree "$1")
[ -z "$violations" ] || { echo "$violations"; exit 1; }
echo "includes and calls of $(cd "$1" && ls base/*.[ch] model/*.[ch] cpu/*.[ch] gpu/*.h gpu/*.cu pool/*.[ch] acquisition/*.[ch] connectors/*.[ch] daemon/*.[ch] daemon/*/*.[ch] | wc -l) files are as they should be"
