/* See http.h. */
#include "daemon/http.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENT_DEADLINE_MS 10000
#define BODY_BYTES_MAX     ((size_t)1 << 20)

struct client {
    int descriptor; /* -1 = free */
    int64_t deadline_ms;
    char request[HTTP_REQUEST_BYTES + 1];
    size_t request_length;
    struct text reply;
    size_t sent;
};

struct http {
    int listener;
    struct client client[HTTP_CLIENTS_MAX];
    http_handler *handler;
    void *context;
};

int http_open(int port, http_handler *handler, void *context, struct http **ret_http)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct http *http = calloc(1, sizeof *http);
    if (!http)
        return error_set(ERROR_SYSTEM, "out of memory for the monitoring port");
    http->handler = handler;
    http->context = context;
    for (int i = 0; i < HTTP_CLIENTS_MAX; i++)
        http->client[i].descriptor = -1;
    http->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(http->listener, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (http->listener < 0 || bind(http->listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(http->listener, HTTP_CLIENTS_MAX) < 0) {
        int code = errno == EADDRINUSE ? ERROR_UNAVAILABLE : ERROR_SYSTEM;
        error_set(code, "cannot listen on 127.0.0.1:%d (metrics.port): %s", port, strerror(errno));
        http_close(http);
        return code;
    }
    *ret_http = http;
    return 0;
}

static void drop(struct client *client)
{
    close(client->descriptor);
    text_free(&client->reply);
    *client = (struct client){.descriptor = -1};
}

void http_close(struct http *http)
{
    if (!http)
        return;
    for (int i = 0; i < HTTP_CLIENTS_MAX; i++)
        if (http->client[i].descriptor >= 0)
            drop(&http->client[i]);
    if (http->listener >= 0)
        close(http->listener);
    free(http);
}

int http_poll(const struct http *http, struct pollfd *set)
{
    int count = 0, room = 0;
    for (int i = 0; http && i < HTTP_CLIENTS_MAX; i++) {
        const struct client *client = &http->client[i];
        if (client->descriptor < 0)
            room = 1;
        else
            set[count++] = (struct pollfd){.fd = client->descriptor, .events = client->reply.bytes ? POLLOUT : POLLIN};
    }
    if (room)
        set[count++] = (struct pollfd){.fd = http->listener, .events = POLLIN};
    return count;
}

static void take_client(struct http *http)
{
    int descriptor = accept4(http->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    for (int i = 0; descriptor >= 0 && i < HTTP_CLIENTS_MAX; i++)
        if (http->client[i].descriptor < 0) {
            http->client[i] =
                (struct client){.descriptor = descriptor, .deadline_ms = clock_patience_ms() + CLIENT_DEADLINE_MS};
            return;
        }
    if (descriptor >= 0)
        close(descriptor);
}

static const char *status_words(int status)
{
    return status == 200   ? "OK"
           : status == 404 ? "Not Found"
           : status == 405 ? "Method Not Allowed"
           : status == 503 ? "Service Unavailable"
                           : "Bad Request";
}

int http_request_path(char *head, const char **ret_path)
{
    char *path = strchr(head, ' '), *end = path ? strchr(path + 1, ' ') : NULL;
    if (!end || path[1] != '/' || strncmp(end, " HTTP/1.", 8) != 0)
        return 400;
    if (strncmp(head, "GET ", 4) != 0)
        return 405;
    *end = 0;
    path[strcspn(path, "?")] = 0;
    *ret_path = path + 1;
    return 200;
}

static void answer(struct http *http, struct client *client)
{
    struct text body = text_new(BODY_BYTES_MAX);
    const char *type = "text/plain; charset=utf-8", *path;
    int status = http_request_path(client->request, &path);
    if (status == 200)
        status = http->handler(http->context, path, &body, &type);
    if (text_error(&body)) {
        status = 503;
        text_clear(&body);
    }
    client->reply = text_new(BODY_BYTES_MAX + 512);
    text_append(&client->reply,
                "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\n%s\r\n", status,
                status_words(status), type, body.length, status == 405 ? "Allow: GET\r\n" : "");
    if (body.length)
        text_append_bytes(&client->reply, body.bytes, body.length);
    text_free(&body);
}

/* The head ends with an empty line; whatever a body would hold is of no interest. */
static void read_client(struct http *http, struct client *client)
{
    ssize_t count = recv(client->descriptor, client->request + client->request_length,
                         HTTP_REQUEST_BYTES - client->request_length, 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        drop(client);
        return;
    }
    client->request_length += (size_t)count;
    client->request[client->request_length] = 0;
    if (strstr(client->request, "\r\n\r\n") || strstr(client->request, "\n\n") ||
        client->request_length == HTTP_REQUEST_BYTES)
        answer(http, client);
}

static void write_client(struct client *client)
{
    ssize_t count =
        send(client->descriptor, client->reply.bytes + client->sent, client->reply.length - client->sent, MSG_NOSIGNAL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count > 0)
        client->sent += (size_t)count;
    if (count < 0 || client->sent == client->reply.length)
        drop(client);
}

void http_step(struct http *http, const struct pollfd *set, int count)
{
    int64_t now_ms = clock_patience_ms();
    if (!http)
        return;
    for (int i = 0; i < count; i++) {
        if (set[i].fd == http->listener && set[i].revents & POLLIN) {
            take_client(http);
            continue;
        }
        for (int j = 0; j < HTTP_CLIENTS_MAX; j++) {
            struct client *client = &http->client[j];
            if (client->descriptor != set[i].fd || !set[i].revents)
                continue;
            if (client->reply.bytes)
                write_client(client);
            else
                read_client(http, client);
            break;
        }
    }
    for (int i = 0; i < HTTP_CLIENTS_MAX; i++)
        if (http->client[i].descriptor >= 0 && now_ms > http->client[i].deadline_ms)
            drop(&http->client[i]);
}
