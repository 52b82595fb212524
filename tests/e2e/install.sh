#!/usr/bin/env bash
# What `cmake --install` lays down is enough: a program of somebody else compiles against the installed header, links the
# installed library and runs; the library offers the functions of its header and nothing else; the programs start from there.
set -euo pipefail
build=$2
folder=$(mktemp -d /tmp/triage-test.XXXXXX)
trap 'rm -rf "$folder"' EXIT
fail() { echo "FAILED: $*" >&2 && exit 1; }
cmake --install "$build" --prefix "$folder/usr" >/dev/null
libraries=$(dirname "$(find "$folder/usr" -name 'libtriage-feed.so')")
cat >"$folder/follow.c" <<'C'
#include <stdio.h>
#include <triage_feed.h>

int main(void)
{
    struct triage_feed_options options = {0};
    struct triage_feed *feed;
    struct triage_feed_status status;
    char request[512];
    size_t count = 1;
    if (triage_feed_open(&options, &feed) < 0 || triage_feed_take(feed, "nonsense", 8, 0) < 0)
        return 1;
    triage_feed_status(feed, &status);
    triage_feed_entries(feed, &count);
    size_t length = triage_feed_request(feed, 0, request, sizeof request); /* it asks for a snapshot */
    printf("%llu malformed, %zu entries, asks: %d\n", (unsigned long long)status.malformed, count, length > 0);
    triage_feed_close(feed);
    return 0;
}
C
sanitized=()
grep -q '^TRIAGE_SANITIZE:BOOL=ON' "$build/CMakeCache.txt" && sanitized=("-fsanitize=address,undefined")
grep -q '^TRIAGE_THREAD_SANITIZE:BOOL=ON' "$build/CMakeCache.txt" && sanitized=(-fsanitize=thread)
read -ra flags < <(PKG_CONFIG_PATH=$libraries/pkgconfig pkg-config --define-variable=prefix="$folder/usr" --cflags --libs triage-feed)
(cd "$folder" && "${CC:-cc}" -std=c99 -Wall -Wextra -Werror -pedantic "${sanitized[@]}" follow.c "${flags[@]}" -o follow)
said=$(LD_LIBRARY_PATH=$libraries ASAN_OPTIONS=detect_leaks=0 "$folder/follow")
[ "$said" = "1 malformed, 0 entries, asks: 1" ] || fail "the program says: $said"
offered=$(nm -D --defined-only "$libraries/libtriage-feed.so" | awk '$2 == "T" { print $3 }' | sed 's/@.*//' | sort)
declared=$(grep -oE '\btriage_feed_[a-z]+\(' "$folder/usr/include/triage_feed.h" | tr -d '(' | sort -u)
[ "$offered" = "$declared" ] || fail "the library offers: ${offered//$'\n'/ }; the header declares: ${declared//$'\n'/ }"
"$folder/usr/bin/triaged" run -n >/dev/null || fail "the installed triaged does not start"
"$folder/usr/bin/triagectl" help >/dev/null || fail "the installed triagectl does not start"
for file in share/man/man8/triaged.8 share/triaged/triaged.conf share/triaged/gpu.conf share/triaged/gpu-modules.conf share/triaged/schemas/gz2.ini share/triaged/python/triage_feed.py \
    lib/systemd/system/triaged.service lib/sysusers.d/triaged.conf; do
    [ -s "$folder/usr/$file" ] || fail "$file is not installed"
done
echo "a program against the installed library: $said"
