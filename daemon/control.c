/* See control.h. Slow or silent clients cost a slot until their deadline, nothing else. */
#include "daemon/control.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "daemon/proto.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENT_DEADLINE_MS 60000
#define READERS_MAX        (CONTROL_CLIENTS_MAX - 8)

struct client {
    int descriptor; /* -1 = free */
    int read_only;
    int asked;           /* nothing more is read from this client */
    uint32_t generation; /* half of its control_client, so that a late answer cannot reach a newcomer */
    int64_t deadline_ms;
    char *request;
    size_t request_length;
    char *reply;
    size_t reply_length, reply_sent;
};

struct control {
    int listener[2]; /* admin, read-only */
    char path[2][sizeof((struct sockaddr_un *)0)->sun_path];
    struct client client[CONTROL_CLIENTS_MAX];
    /* The connection that answers applies the votes too: readers, who may be anybody, have one question there at a time. */
    int reader_asks;
    control_client reader; /* whose it is, who may have gone away since */
    control_request *handler;
    void *context;
};

/* JSON that was refused memory anywhere lacks a part somewhere: nobody is told half of an answer. */
static long refused, refused_seen;

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    refused += !memory;
    return memory;
}

static char *answer_line(const json_t *answer)
{
    char *line = json_dumps(answer, JSON_COMPACT);
    if (line && refused == refused_seen)
        return line;
    refused_seen = refused;
    free(line);
    error_set(ERROR_SYSTEM, "out of memory for an answer");
    return strdup("{\"ok\":false,\"exit\":1,\"message\":\"out of memory for an answer: try again\"}");
}

static int bind_socket(const char *folder, const char *name, mode_t mode, char *path, int *ret_descriptor)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int result = file_path(path, sizeof address.sun_path, "%s/%s", folder, name);
    if (result)
        return error_prefix(result, "control socket: ");
    memcpy(address.sun_path, path, strlen(path));
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0)
        return error_set_errno("cannot make a control socket");
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address) == 0) {
        close(descriptor);
        return error_set(ERROR_UNAVAILABLE, "another daemon already answers at %s: stop it, or set instance.run", path);
    }
    close(descriptor);
    unlink(path); /* left over from a daemon that was killed */
    descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (descriptor < 0 || bind(descriptor, (struct sockaddr *)&address, sizeof address) < 0 || chmod(path, mode) < 0 ||
        listen(descriptor, CONTROL_CLIENTS_MAX) < 0) {
        result = error_set_errno("cannot listen on %s", path);
        if (descriptor >= 0)
            close(descriptor);
        return result;
    }
    *ret_descriptor = descriptor;
    return 0;
}

int control_open(const char *folder, control_request *handler, void *context, struct control **ret_control)
{
    struct control *control = calloc(1, sizeof *control);
    if (!control)
        return error_set(ERROR_SYSTEM, "out of memory for the control sockets");
    json_set_alloc_funcs(allocate, free);
    control->handler = handler;
    control->context = context;
    control->listener[0] = control->listener[1] = -1;
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        control->client[i].descriptor = -1;
    int result = bind_socket(folder, PROTO_ADMIN_SOCKET, 0600, control->path[0], &control->listener[0]);
    if (!result)
        result = bind_socket(folder, PROTO_READ_SOCKET, 0666, control->path[1], &control->listener[1]);
    if (result) {
        control_close(control);
        return result;
    }
    *ret_control = control;
    return 0;
}

static void drop_client(struct client *client)
{
    close(client->descriptor);
    free(client->request);
    free(client->reply);
    *client = (struct client){.descriptor = -1, .generation = client->generation + 1};
}

void control_close(struct control *control)
{
    if (!control)
        return;
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (control->client[i].descriptor >= 0)
            drop_client(&control->client[i]);
    for (int i = 0; i < 2; i++)
        if (control->listener[i] >= 0) {
            close(control->listener[i]);
            unlink(control->path[i]);
        }
    free(control);
}

/* One that waits for its answer is only watched for its end. */
static short wanted_events(const struct client *client)
{
    return client->reply ? POLLOUT : client->asked ? 0 : POLLIN;
}

int control_poll(const struct control *control, struct pollfd *set)
{
    int count = 0, room = 0;
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        const struct client *client = &control->client[i];
        if (client->descriptor < 0)
            room = 1;
        else
            set[count++] = (struct pollfd){.fd = client->descriptor, .events = wanted_events(client)};
    }
    for (int i = 0; i < 2 && room; i++)
        set[count++] = (struct pollfd){.fd = control->listener[i], .events = POLLIN};
    return count;
}

/* Root and the daemon's own user may change things, whatever became of the socket's mode. */
static int is_admin(int descriptor)
{
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

/* Readers, who may be anybody, leave some places for those who can mend things. */
static int is_full_for(const struct control *control, int read_only)
{
    int readers = 0;
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        readers += control->client[i].descriptor >= 0 && control->client[i].read_only;
    return read_only && readers >= READERS_MAX;
}

static void accept_client(struct control *control, int listener)
{
    int descriptor = accept4(control->listener[listener], NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    int read_only = listener == 1 || descriptor < 0 || !is_admin(descriptor);
    for (int i = 0; descriptor >= 0 && i < CONTROL_CLIENTS_MAX && !is_full_for(control, read_only); i++)
        if (control->client[i].descriptor < 0) {
            control->client[i].descriptor = descriptor;
            control->client[i].read_only = read_only;
            control->client[i].deadline_ms = clock_patience_ms() + CLIENT_DEADLINE_MS;
            return;
        }
    if (descriptor >= 0)
        close(descriptor);
}

static control_client client_name(const struct control *control, const struct client *client)
{
    return (uint64_t)client->generation << 32 | (uint64_t)(client - control->client);
}

static void handle_request(struct control *control, struct client *client)
{
    json_error_t problem;
    json_t *request = json_loads(client->request, JSON_REJECT_DUPLICATES, &problem);
    const char *verb = json_string_value(json_object_get(request, "verb"));
    const struct proto_verb *row = NULL;
    for (size_t i = 0; verb && i < PROTO_VERB_COUNT; i++)
        if (strcmp(proto_verbs[i].name, verb) == 0)
            row = &proto_verbs[i];
    control_client name = client_name(control, client);
    if (!request)
        control_refuse(control, name, PROTO_EXIT_USAGE, "the request is not JSON: %s", problem.text);
    else if (!row)
        control_refuse(control, name, PROTO_EXIT_USAGE, "unknown verb '%.40s'", verb ? verb : "");
    else if (client->read_only && !row->read_only)
        control_refuse(control, name, PROTO_EXIT_REFUSED, "'%s' needs the admin socket (the daemon's user or root)",
                       verb);
    else if (client->read_only && row->asks_database && control->reader_asks)
        control_refuse(control, name, PROTO_EXIT_REFUSED,
                       "another reader's question is with the database: try again in a moment");
    else {
        if (client->read_only && row->asks_database) {
            control->reader_asks = 1;
            control->reader = name;
        }
        control->handler(control->context, name, verb, request);
    }
    json_decref(request);
}

static void read_client(struct control *control, struct client *client)
{
    char block[4096];
    ssize_t count = read(client->descriptor, block, sizeof block);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    char *larger = count > 0 ? realloc(client->request, client->request_length + (size_t)count + 1) : NULL;
    if (!larger) {
        drop_client(client);
        return;
    }
    client->request = larger;
    memcpy(larger + client->request_length, block, (size_t)count);
    client->request_length += (size_t)count;
    larger[client->request_length] = 0;
    char *end = memchr(larger, '\n', client->request_length); /* there may be a 0 before it */
    if (end) {
        *end = 0;
        client->asked = 1;
        handle_request(control, client);
    } else if (client->request_length > PROTO_REQUEST_BYTES_MAX)
        control_refuse(control, client_name(control, client), PROTO_EXIT_USAGE, "a request holds at most %d bytes",
                       PROTO_REQUEST_BYTES_MAX);
}

static void write_client(struct client *client)
{
    ssize_t count = send(client->descriptor, client->reply + client->reply_sent,
                         client->reply_length - client->reply_sent, MSG_NOSIGNAL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count > 0)
        client->reply_sent += (size_t)count;
    if (count < 0 || client->reply_sent == client->reply_length)
        drop_client(client);
}

void control_step(struct control *control, const struct pollfd *set, int count)
{
    int64_t now_ms = clock_patience_ms();
    for (int i = 0; i < count; i++) {
        for (int j = 0; j < 2; j++)
            if (set[i].fd == control->listener[j] && set[i].revents & POLLIN)
                accept_client(control, j);
        for (int j = 0; j < CONTROL_CLIENTS_MAX; j++) {
            struct client *client = &control->client[j];
            if (client->descriptor != set[i].fd || !set[i].revents)
                continue;
            if (client->reply)
                write_client(client);
            else if (client->asked)
                drop_client(client); /* it has gone away */
            else
                read_client(control, client);
        }
    }
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        if (control->client[i].descriptor >= 0 && now_ms > control->client[i].deadline_ms)
            drop_client(&control->client[i]);
}

void control_answer(struct control *control, control_client name, json_t *answer)
{
    struct client *client = &control->client[name & 0xffffffffu];
    if (control->reader_asks && control->reader == name)
        control->reader_asks = 0;
    if (client->descriptor >= 0 && client->generation == name >> 32 && !client->reply) {
        char *line = answer_line(answer);
        size_t length = line ? strlen(line) : 0;
        char *reply = line ? realloc(line, length + 2) : NULL;
        if (!reply)
            free(line);
        if (reply) {
            memcpy(reply + length, "\n", 2);
            client->reply = reply;
            client->reply_length = length + 1;
        } else
            drop_client(client);
    }
    json_decref(answer);
}

void control_done(struct control *control, control_client client, const char *format, ...)
{
    char text[ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    text_make_printable(text);
    control_answer(control, client, json_pack("{s:b,s:s}", "ok", 1, "message", text));
}

void control_refuse(struct control *control, control_client client, int exit_code, const char *format, ...)
{
    char text[ERROR_MESSAGE_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    text_make_printable(text);
    control_answer(control, client, json_pack("{s:b,s:i,s:s}", "ok", 0, "exit", exit_code, "message", text));
}
