/* Configuration, decision trees, catalogues, control requests; see fuzz.h. */
#include "base/error.h"
#include "base/file.h"
#include "connectors/catalogue.h"
#include "connectors/image.h"
#include "daemon/config.h"
#include "daemon/control.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/proto.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* --- configuration: what is accepted can be printed and read back ---------------------------------------------------- */

void fuzz_config(const uint8_t *bytes, size_t length)
{
    struct config config;
    if (config_read(fuzz_file(bytes, length), &config)) {
        fuzz_require(error_message()[0] != 0, "a refused configuration without a reason");
        return;
    }
    char *text = NULL;
    size_t size;
    FILE *memory = open_memstream(&text, &size);
    config_print(&config, memory);
    fclose(memory);
    fuzz_require(strstr(text, "[instance]") != NULL, "a configuration that cannot be printed");
    free(text);
}

int fuzz_config_seed(int number, struct text *out)
{
    if (number == 0)
        fuzz_read(out, TRIAGE_SOURCE_FOLDER "/etc/triaged.conf");
    if (number == 1)
        text_append(
            out, "[instance]\nname = a\nschema=gz2\n[heads]\ncount = 2\npasses = 4\n# words\n[score]\npower = 0.5\n");
    return number < 2;
}

/* --- schema: what is accepted holds what its header promises ----------------------------------------------------- */

void fuzz_schema(const uint8_t *bytes, size_t length)
{
    static struct schema schema;
    float fraction[SCHEMA_ANSWERS_MAX], reached[SCHEMA_QUESTIONS_MAX];
    if (schema_load(fuzz_file(bytes, length), &schema))
        return;
    fuzz_require(schema.questions >= 1 && schema.answers >= 2, "an empty tree");
    for (int a = 0; a < schema.answers; a++) {
        fraction[a] = 0.5f;
        fuzz_require(
            schema_find_answer(&schema, schema.question[schema.answer[a].question].name, schema.answer[a].name) == a,
            "an answer that is not found by its name");
    }
    schema_reached(&schema, fraction, reached);
    for (int q = 0; q < schema.questions; q++)
        fuzz_require(reached[q] > 0 && reached[q] <= 1, "a question that is never asked");
}

int fuzz_schema_seed(int number, struct text *out)
{
    static const char *const files[] = {"gz2_no_suffix", "decals_dr5", "rings", "jwst"};
    char path[256];
    if (number >= 4)
        return 0;
    snprintf(path, sizeof path, TRIAGE_SOURCE_FOLDER "/etc/schemas/%s.ini", files[number]);
    if (!file_exists(path))
        snprintf(path, sizeof path, TRIAGE_SOURCE_FOLDER "/etc/schemas/gz2.ini");
    fuzz_read(out, path);
    return 1;
}

/* --- catalogue: rows within their limits ----------------------------------------------------------------------------- */

static struct schema catalogue_schema;

void fuzz_catalogue_open(void)
{
    fuzz_require(schema_load(TRIAGE_SOURCE_FOLDER "/etc/schemas/gz2_no_suffix.ini", &catalogue_schema) == 0,
                 "the schema");
}

void fuzz_catalogue(const uint8_t *bytes, size_t length)
{
    struct catalogue_summary summary;
    struct catalogue *catalogue;
    struct catalogue_row row;
    const char *path = fuzz_file(bytes, length);
    int good = catalogue_check(path, &catalogue_schema, &summary) == 0, got = 0;
    long rows = 0;
    if (catalogue_open(path, &catalogue_schema, &catalogue))
        return;
    while ((got = catalogue_next(catalogue, &row)) > 0) {
        char resolved[FILE_PATH_BYTES];
        size_t id = strlen(row.id_str), file = strlen(row.file_loc);
        fuzz_require(id >= 1 && id <= CATALOGUE_ID_BYTES_MAX && file >= 1 && file <= CATALOGUE_FILE_BYTES_MAX,
                     "a text beyond its limit");
        fuzz_require((isnan(row.ra) && isnan(row.dec)) || (isfinite(row.ra) && fabs(row.dec) <= 90), "a position");
        for (int a = 0; a < catalogue_schema.answers; a++)
            fuzz_require(row.votes[a] <= CATALOGUE_VOTES_MAX, "votes beyond their limit");
        fuzz_require(image_resolve("/survey", "", row.file_loc, resolved, sizeof resolved) ||
                         strncmp(resolved, "/survey/", 8) == 0,
                     "an image outside the catalogue's folder");
        rows++;
    }
    fuzz_require(!good || (got == 0 && rows == summary.rows), "a checked catalogue that cannot be read");
    catalogue_close(catalogue);
}

int fuzz_catalogue_seed(int number, struct text *out)
{
    static const char *const files[] = {
        "id_str,file_loc\na,a.png\nb,b.png\n",
        "\357\273\277file_loc,id_str,disk-edge-on_yes\n\"a b.png\",\"J000,1\",3\n",
    };
    if (number >= 2)
        return 0;
    text_append(out, "%s", files[number]);
    return 1;
}

/* --- control: every request gets one line of JSON, and none gets more rights than its socket ---------------------------- */

static struct control *control;
static char control_folder[] = "/tmp/triage-fuzz-XXXXXX";
static int reached_admin_verb;

/* As the daemon does, with a database that answers the same to everything. */
static void handle(void *context, control_client client, const char *verb, const json_t *request)
{
    struct daemon *daemon = fuzz_the_daemon();
    struct control *own = daemon->control;
    (void)context;
    for (size_t i = 0; i < PROTO_VERB_COUNT; i++)
        if (strcmp(proto_verbs[i].name, verb) == 0)
            reached_admin_verb |= !proto_verbs[i].read_only;
    daemon->control = control;
    verbs_handle(daemon, client, verb, request);
    fuzz_give_answers();
    daemon->control = own;
}

static void close_control(void)
{
    control_close(control);
    rmdir(control_folder);
}

void fuzz_control_open(void)
{
    static const char cells[] = "1\0J1\0a.png\0000\0f\0t\0f\0f\0003\00012.5\0-3.25\0\1\0x\0y\0z\0w";
    fuzz_answer_with((const uint8_t *)cells, sizeof cells);
    fuzz_the_daemon();
    fuzz_require(mkdtemp(control_folder) && control_open(control_folder, handle, NULL, &control) == 0,
                 "the control socket");
    atexit(close_control);
}

static void step(void)
{
    struct pollfd set[CONTROL_POLL_MAX];
    int count = control_poll(control, set);
    poll(set, (nfds_t)count, 0);
    control_step(control, set, count);
}

static int dial(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof address.sun_path, "%s/%s", control_folder, PROTO_READ_SOCKET);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fuzz_require(descriptor >= 0 && connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0,
                 "the daemon's side takes nobody");
    return descriptor;
}

void fuzz_control(const uint8_t *bytes, size_t length)
{
    char answer[4096];
    int descriptor = dial(), whole = memchr(bytes, '\n', length) != NULL;
    reached_admin_verb = 0;
    step();
    for (size_t sent = 0; sent < length;) { /* in pieces that the socket takes */
        ssize_t count = send(descriptor, bytes + sent, length - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += count > 0 ? (size_t)count : 0;
        step();
        if (count < 0)
            break;
    }
    ssize_t got = 0;
    for (int turn = 0; turn < 64 && whole && got <= 0; turn++) {
        step();
        got = recv(descriptor, answer, sizeof answer, MSG_DONTWAIT);
    }
    fuzz_require(!reached_admin_verb, "an admin verb on the read-only socket");
    fuzz_require(!whole || (got > 0 && answer[0] == '{'), "a request without an answer");
    close(descriptor);
    step();
}

int fuzz_control_seed(int number, struct text *out)
{
    static const char *const requests[] = {
        "{\"verb\":\"status\"}\n",
        "{\"verb\":\"queue\",\"top\":20}\n",
        "{\"verb\":\"why\",\"id\":\"J1\"}\n",
        "{\"verb\":\"pin\",\"id\":\"J1\"}\n",
        "{\"verb\":\"galaxies\",\"bad\":true,\"retry\":false}\n",
    };
    if (number >= 5)
        return 0;
    text_append(out, "%s", requests[number]);
    return 1;
}

/* --- monitoring: a path is a terminated piece of the head, or there is none -------------------------------------------- */

void fuzz_http(const uint8_t *bytes, size_t length)
{
    char head[HTTP_REQUEST_BYTES + 1];
    const char *path = NULL;
    length = length > HTTP_REQUEST_BYTES ? HTTP_REQUEST_BYTES : length;
    memcpy(head, bytes, length);
    head[length] = 0;
    int status = http_request_path(head, &path);
    fuzz_require(status == 400 || status == 405 ||
                     (status == 200 && path[0] == '/' && path >= head && path + strlen(path) <= head + length &&
                      !strpbrk(path, " ?")),
                 "a path that is none");
}

int fuzz_http_seed(int number, struct text *out)
{
    if (number == 0)
        text_append(out, "GET /metrics?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    if (number == 1)
        text_append(out, "POST /readyz HTTP/1.0\r\n\r\n");
    return number < 2;
}
