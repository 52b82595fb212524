/* See private_postgres.h. Programs are started from argument vectors, never through a shell. */
#include "connectors/private_postgres.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/file.h"
#include "base/signals.h"
#include "connectors/database.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <fcntl.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROGRAMS          "/usr/lib/postgresql"
#define START_TIMEOUT_MS  60000
#define STOP_FAST_MS      4000 /* the three together leave the daemon's 10 s some room */
#define STOP_IMMEDIATE_MS 1500
#define STOP_KILL_MS      1000
#define SOCKET_PATH_MAX   90 /* of 107, less "/.s.PGSQL.5432.lock" */
#define ARGUMENTS_MAX     32
#define RETRY_MS          1000
#define RETRY_DOUBLES     6
#define LOG_BYTES_MAX     (8 << 20)
#define LOG_BYTES_KEPT    (1 << 20)
#define LOG_END_BYTES     300
#define LOG_CAUSE_BYTES   4096
#define WAL_SEGMENT_BYTES (16 << 20)

/* Settings of a server that shares a machine with the daemon. Commits stay durable. */
static const char *const settings[] = {
    "listen_addresses=",
    "shared_buffers=64MB",
    "max_connections=40",
    "synchronous_commit=on",
    "unix_socket_permissions=0700",
    "log_min_messages=warning",
    "max_wal_size=256MB",
    "autovacuum_vacuum_scale_factor=0.02",
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
};

/* Major version that made the cluster; 0 = there is none yet. */
static long cluster_version(const char *data)
{
    char path[FILE_PATH_BYTES], *text;
    size_t length;
    if (file_path(path, sizeof path, "%s/PG_VERSION", data) || file_read(path, 64, &text, &length))
        return 0;
    long version = strtol(text, NULL, 10);
    free(text);
    return version;
}

/* Folder of the programs of the version that made the cluster; for a new one the newest there is. */
static int find_programs(const char *state, char *folder, size_t size)
{
    char data[FILE_PATH_BYTES], program[FILE_PATH_BYTES];
    int result = file_path(data, sizeof data, "%s/data", state);
    long made_by = result ? 0 : cluster_version(data);
    if (!result && made_by) {
        result = file_path(program, sizeof program, PROGRAMS "/%ld/bin/postgres", made_by);
        if (!result && access(program, X_OK) < 0)
            return error_set(
                ERROR_NOT_FOUND,
                "%s was made by PostgreSQL %ld, which is not installed: install postgresql-%ld, or move it "
                "on with pg_upgrade",
                data, made_by, made_by);
        return result ? result : file_path(folder, size, PROGRAMS "/%ld/bin", made_by);
    }
    DIR *listing = opendir(PROGRAMS);
    long newest = 0;
    for (struct dirent *entry; listing && (entry = readdir(listing));) {
        char path[FILE_PATH_BYTES];
        long version = strtol(entry->d_name, NULL, 10);
        if (version > newest && file_path(path, sizeof path, PROGRAMS "/%ld/bin/initdb", version) == 0 &&
            access(path, X_OK) == 0)
            newest = version;
    }
    if (listing)
        closedir(listing);
    if (!newest)
        return error_set(ERROR_NOT_FOUND,
                         "no PostgreSQL server under " PROGRAMS ": install the package postgresql, or set "
                         "database.url");
    return file_path(folder, size, PROGRAMS "/%ld/bin", newest);
}

/* The user the server runs as when we are root; PostgreSQL refuses to run as root itself. */
static const struct passwd *server_user(void)
{
    const struct passwd *user = getpwnam("postgres");
    return user ? user : getpwnam("nobody");
}

/* Fills `arguments` with setpriv in front when we are root. */
static int drop_privileges(char *arguments[ARGUMENTS_MAX], char uid[32], char gid[32], bool tied)
{
    if (geteuid() != 0)
        return 0;
    const struct passwd *user = server_user();
    if (!user)
        return 0;
    snprintf(uid, 32, "--reuid=%u", (unsigned)user->pw_uid);
    snprintf(gid, 32, "--regid=%u", (unsigned)user->pw_gid);
    arguments[0] = (char *)(uintptr_t) "setpriv";
    arguments[1] = uid;
    arguments[2] = gid;
    arguments[3] = (char *)(uintptr_t) "--clear-groups";
    arguments[4] = (char *)(uintptr_t) "--pdeathsig";
    arguments[5] = (char *)(uintptr_t)(tied ? "KILL" : "clear");
    return 6;
}

/*
 * Starts a program with its output in `log`; a session of its own, so that a terminal's Ctrl-C does not reach it. One that is
 * `tied` dies with us (setpriv, which resets that when it changes the user, is told so too).
 */
static pid_t start_program(char *const arguments[], const char *folder, const char *log, bool tied)
{
    pid_t pid = fork();
    if (pid)
        return pid;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    signal(SIGPIPE, SIG_DFL);
    setsid();
    if (tied)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    int output = open(log, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW, 0640), input = open("/dev/null", O_RDONLY);
    dup2(input, 0);
    dup2(output, 1);
    dup2(output, 2);
    for (int descriptor = 3; descriptor < 1024; descriptor++)
        close(descriptor);
    setenv("LC_ALL", "C.UTF-8", 1);
    unsetenv("NOTIFY_SOCKET"); /* PostgreSQL would tell systemd that we are ready */
    if (chdir(folder) < 0)
        _exit(126);
    execvp(arguments[0], arguments);
    dprintf(2, "cannot run %s: %s\n", arguments[0], strerror(errno));
    _exit(127);
}

/* Why the last server ended: what it called fatal itself, not what it told clients that came too soon or were sent away. NULL if it did
 * not say. */
static const char *find_cause(char *lines)
{
    const char *cause = NULL;
    for (char *line; (line = strsep(&lines, "\n"));)
        if (strstr(line, " LOG:  starting PostgreSQL"))
            cause = NULL;
        else if (strstr(line, " PANIC:  ") ||
                 (strstr(line, " FATAL:  ") && !strstr(line, " FATAL:  the database system is ") &&
                  !strstr(line, " FATAL:  terminating ")))
            cause = line;
    return cause;
}

static int log_tail(const struct private_postgres *postgres, const char *what)
{
    char path[600], end[LOG_END_BYTES + 1], *bytes = NULL;
    size_t length = 0;
    struct statvfs disk;
    snprintf(path, sizeof path, "%s/log", postgres->folder);
    file_read(path, 64 << 20, &bytes, &length);
    snprintf(end, sizeof end, "%s", bytes ? bytes + (length > LOG_END_BYTES ? length - LOG_END_BYTES : 0) : "");
    const char *cause = bytes ? find_cause(bytes + (length > LOG_CAUSE_BYTES ? length - LOG_CAUSE_BYTES : 0)) : NULL;
    bool full = statvfs(postgres->folder, &disk) == 0 && disk.f_bavail * disk.f_frsize < WAL_SEGMENT_BYTES;
    int result = error_set(ERROR_UNAVAILABLE, "%s%s; %s%s says: %s", what,
                           full ? ", and hardly any disk space is left for it" : "", cause ? "" : "the end of ", path,
                           cause ? cause : end);
    free(bytes);
    return result;
}

static int make_folders(struct private_postgres *postgres, char *data, char *socket, size_t size)
{
    int result = file_path(data, size, "%s/data", postgres->folder);
    if (!result)
        result = file_path(socket, size, "%s/socket", postgres->folder);
    if (!result && strlen(socket) > SOCKET_PATH_MAX)
        result = error_set(ERROR_INPUT,
                           "%s is too deep for a Unix socket (%zu of at most %d characters): use a shorter "
                           "instance.state",
                           socket, strlen(socket), SOCKET_PATH_MAX);
    if (!result && strchr(socket, ',')) /* to libpq and the server these would be two folders */
        result = error_set(ERROR_INPUT,
                           "%s: a comma ends the name of a socket's folder: use an instance.state without one", socket);
    if (!result)
        result = file_make_folder(postgres->folder, 0711);
    if (!result && mkdir(socket, 0700) < 0 && errno != EEXIST)
        result = error_set_errno("cannot make %s", socket);
    if (result || geteuid() != 0)
        return result;
    const struct passwd *user = server_user();
    char log[600];
    snprintf(log, sizeof log, "%s/log", postgres->folder);
    /* The folder is that user's, who may have put a link there: what it points to must not become theirs. */
    int made = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (made < 0)
        result = error_set_errno("cannot open %s", log);
    else if (!user || lchown(postgres->folder, user->pw_uid, user->pw_gid) < 0 ||
             lchown(socket, user->pw_uid, user->pw_gid) < 0 || fchown(made, user->pw_uid, user->pw_gid) < 0)
        result = error_set_errno("cannot give %s to the user the database runs as", postgres->folder);
    if (made >= 0)
        close(made);
    return result;
}

/* A folder above that is closed to the user would make the server fail in a way nobody understands. */
static int check_reachable(const char *folder)
{
    char path[FILE_PATH_BYTES];
    if (geteuid() != 0 || file_path(path, sizeof path, "%s", folder))
        return 0;
    for (char *slash = strrchr(path, '/'); slash && slash != path; slash = strrchr(path, '/')) {
        struct stat info;
        *slash = 0;
        if (stat(path, &info) == 0 && !(info.st_mode & S_IXOTH) && info.st_uid != server_user()->pw_uid)
            return error_set(ERROR_INPUT,
                             "the user %s, as whom the private database runs, may not enter %s: chmod o+x %s, "
                             "or choose another instance.state",
                             server_user()->pw_name, path, path);
    }
    return 0;
}

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

/* Runs initdb to its end, or ends it when the process is asked to end. It does not outlive us: a later start begins again. */
static int run_initdb(struct private_postgres *postgres, const char *programs, const char *data)
{
    char initdb[FILE_PATH_BYTES], log[600], uid[32], gid[32];
    char *arguments[ARGUMENTS_MAX] = {0};
    int status, result = file_path(initdb, sizeof initdb, "%s/initdb", programs);
    if (result)
        return result;
    int at = drop_privileges(arguments, uid, gid, true);
    snprintf(log, sizeof log, "%s/log", postgres->folder);
    const char *options[] = {
        initdb, "-D", data, "-U", "triage", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-instructions"};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        arguments[at++] = (char *)(uintptr_t)options[i];
    pid_t pid = start_program(arguments, postgres->folder, log, true), ended = 0;
    bool asked = false;
    while (pid > 0 && (ended = waitpid(pid, &status, WNOHANG)) == 0) {
        if (!asked && (asked = signals_end_pending()))
            kill(-pid, SIGKILL); /* its session */
        poll(NULL, 0, 20);
    }
    if (asked)
        return error_set(ERROR_CANCELLED, "asked to stop while the private database is made");
    if (ended != pid || pid <= 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return log_tail(postgres, "cannot make the private database");
    return 0;
}

/* initdb writes PG_VERSION first, so only the folder's name says that it is complete. */
static int make_cluster(struct private_postgres *postgres, const char *programs, const char *data)
{
    char fresh[FILE_PATH_BYTES];
    int result = file_path(fresh, sizeof fresh, "%s.new", data);
    if (result || cluster_version(data))
        return result;
    if (file_exists(fresh) && nftw(fresh, remove_entry, 16, FTW_DEPTH | FTW_PHYS))
        return error_set_errno("cannot remove %s, which was not finished", fresh);
    result = run_initdb(postgres, programs, fresh);
    if (result)
        return result;
    if (rename(fresh, data) < 0)
        return error_set_errno("cannot rename %s", fresh);
    int folder = open(postgres->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* initdb has synced what is inside */
    if (folder < 0 || fsync(folder) < 0)
        result = error_set_errno("cannot write %s", postgres->folder);
    if (folder >= 0)
        close(folder);
    return result;
}

/* The postmaster's process if it runs: its pid file names it and /proc says it works in our data folder. */
static pid_t running_postmaster(const char *data)
{
    char path[FILE_PATH_BYTES], link[64], target[FILE_PATH_BYTES], *bytes;
    size_t length;
    if (file_path(path, sizeof path, "%s/postmaster.pid", data) || file_read(path, 4096, &bytes, &length))
        return 0;
    long pid = strtol(bytes, NULL, 10);
    free(bytes);
    if (pid <= 1 || kill((pid_t)pid, 0) < 0)
        return 0;
    snprintf(link, sizeof link, "/proc/%ld/cwd", pid);
    ssize_t count = readlink(link, target, sizeof target - 1);
    if (count < 0)
        return 0;
    target[count] = 0;
    struct stat ours, theirs;
    return stat(data, &ours) == 0 && stat(target, &theirs) == 0 && ours.st_ino == theirs.st_ino &&
                   ours.st_dev == theirs.st_dev
               ? (pid_t)pid
               : 0;
}

static int launch(struct private_postgres *postgres, const char *programs, const char *data, const char *socket)
{
    char program[FILE_PATH_BYTES], log[600], uid[32], gid[32], *arguments[ARGUMENTS_MAX + 32] = {0};
    int at = drop_privileges(arguments, uid, gid, false);
    int result = file_path(program, sizeof program, "%s/postgres", programs);
    if (result)
        return result;
    snprintf(log, sizeof log, "%s/log", postgres->folder);
    const char *options[] = {program, "-D", data, "-k", socket};
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        arguments[at++] = (char *)(uintptr_t)options[i];
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        arguments[at++] = (char *)(uintptr_t) "-c";
        arguments[at++] = (char *)(uintptr_t)settings[i];
    }
    postgres->pid = start_program(arguments, postgres->folder, log, false);
    return postgres->pid > 0 ? 0 : error_set_errno("cannot start the private database");
}

/* How to reach a database of the server, with the folder as libpq quotes values: it may have spaces. */
static int make_url(const char *folder, const char *name, char *url, size_t size)
{
    char quoted[2 * FILE_PATH_BYTES];
    size_t used = 0;
    for (; *folder && used + 2 < sizeof quoted; folder++) {
        if (*folder == '\\' || *folder == '\'')
            quoted[used++] = '\\';
        quoted[used++] = *folder;
    }
    quoted[used] = 0;
    return file_path(url, size, "host='%s/socket' user=triage dbname=%s", quoted, name);
}

/* One that was adopted while it was ending is waited for, and followed by one of our own. */
static int wait_until_ready(struct private_postgres *postgres, const char *programs, const char *data,
                            const char *socket)
{
    char first[sizeof postgres->url];
    int64_t deadline_ms = clock_patience_ms() + START_TIMEOUT_MS;
    struct database *database;
    int result = make_url(postgres->folder, "postgres", first, sizeof first);
    if (result)
        return result;
    while (database_open(first, &database)) {
        if (postgres->adopted && running_postmaster(data) != postgres->pid) {
            postgres->adopted = false;
            result = launch(postgres, programs, data, socket);
            if (result)
                return result;
        }
        int status, gone = !postgres->adopted && waitpid(postgres->pid, &status, WNOHANG) == postgres->pid;
        if (gone || clock_patience_ms() > deadline_ms)
            return log_tail(postgres, gone ? "the private database ended while starting"
                                           : "the private database did not answer within 60 s");
        if (signals_end_pending())
            return error_set(ERROR_CANCELLED, "asked to stop while the private database starts");
        poll(NULL, 0, 50);
    }
    struct database_result *rows = NULL;
    result = database_run(database, "SELECT 1 FROM pg_database WHERE datname = 'triage'", 0, NULL, &rows);
    if (!result && database_rows(rows) == 0)
        result = database_script(database, "CREATE DATABASE triage");
    database_result_free(rows);
    database_close(database);
    return result;
}

int private_postgres_start(const char *folder, struct private_postgres *ret_postgres)
{
    struct private_postgres postgres = {0};
    char programs[FILE_PATH_BYTES], data[FILE_PATH_BYTES], socket[FILE_PATH_BYTES];
    if (snprintf(postgres.folder, sizeof postgres.folder, "%s", folder) >= (int)sizeof postgres.folder)
        return error_set(ERROR_INPUT, "the state folder's path is too long");
    int result = find_programs(folder, programs, sizeof programs);
    if (!result)
        result = make_folders(&postgres, data, socket, sizeof data);
    if (!result)
        result = make_url(folder, "triage", postgres.url, sizeof postgres.url);
    if (!result)
        result = check_reachable(folder);
    if (!result)
        result = make_cluster(&postgres, programs, data);
    if (result)
        return result;
    postgres.pid = running_postmaster(data);
    postgres.adopted = postgres.pid > 0;
    if (!postgres.adopted)
        result = launch(&postgres, programs, data, socket);
    if (!result && (result = wait_until_ready(&postgres, programs, data, socket)) && !postgres.adopted) {
        char why[ERROR_MESSAGE_BYTES];
        snprintf(why, sizeof why, "%s", error_message());
        private_postgres_stop(&postgres); /* nobody else would */
        error_set(result, "%s", why);
    }
    if (!result)
        *ret_postgres = postgres;
    return result;
}

/* A child is asked itself: one that was just started again has no pid file yet. */
static bool is_gone(struct private_postgres *postgres, const char *data)
{
    int status;
    bool gone = postgres->pid <= 0 || (postgres->adopted ? running_postmaster(data) != postgres->pid
                                                         : waitpid(postgres->pid, &status, WNOHANG) != 0);
    if (gone)
        postgres->pid = 0;
    return gone;
}

/* The server goes on writing where the file now ends. */
static void limit_log(const struct private_postgres *postgres)
{
    char path[FILE_PATH_BYTES], kept[FILE_PATH_BYTES];
    struct stat info;
    if (file_path(path, sizeof path, "%s/log", postgres->folder) ||
        file_path(kept, sizeof kept, "%s/log.1", postgres->folder) || lstat(path, &info) < 0 ||
        !S_ISREG(info.st_mode) || info.st_size <= LOG_BYTES_MAX)
        return;
    char *tail = malloc(LOG_BYTES_KEPT);
    int log = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    ssize_t count = tail && log >= 0 ? pread(log, tail, LOG_BYTES_KEPT, info.st_size - LOG_BYTES_KEPT) : -1;
    if (count > 0)
        file_write(kept, &(struct file_part){tail, (size_t)count}, 1, 0640);
    if (log >= 0 && ftruncate(log, 0) < 0)
        error_set_errno("cannot shorten %s", path); /* the next look tries again */
    if (log >= 0)
        close(log);
    free(tail);
}

int private_postgres_revive(struct private_postgres *postgres, bool answers)
{
    char programs[FILE_PATH_BYTES], data[FILE_PATH_BYTES], socket[FILE_PATH_BYTES];
    int result = file_path(data, sizeof data, "%s/data", postgres->folder);
    int64_t now_ms = clock_patience_ms();
    limit_log(postgres);
    if (answers) {
        postgres->failures = 0;
        postgres->retry_at_ms = 0;
    }
    if (result || !is_gone(postgres, data) || now_ms < postgres->retry_at_ms)
        return result;
    postgres->pid = running_postmaster(data);
    postgres->adopted = postgres->pid > 0;
    if (postgres->adopted) /* somebody else was quicker */
        return 0;
    postgres->retry_at_ms =
        now_ms + ((int64_t)RETRY_MS << (postgres->failures < RETRY_DOUBLES ? postgres->failures : RETRY_DOUBLES));
    postgres->failures++;
    result = find_programs(postgres->folder, programs, sizeof programs);
    if (!result)
        result = file_path(socket, sizeof socket, "%s/socket", postgres->folder);
    if (!result)
        result = launch(postgres, programs, data, socket);
    return result ? result : 1;
}

int private_postgres_stop(struct private_postgres *postgres)
{
    static const struct {
        int signal, limit_ms;
    } steps[] = {
        {SIGINT,  STOP_FAST_MS     },
        {SIGQUIT, STOP_IMMEDIATE_MS},
        {SIGKILL, STOP_KILL_MS     }, /* it hangs; what was committed is in its log all the same */
    };
    char data[FILE_PATH_BYTES];
    int result = file_path(data, sizeof data, "%s/data", postgres->folder);
    if (result || is_gone(postgres, data))
        return result;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        int64_t deadline_ms = clock_patience_ms() + steps[i].limit_ms;
        kill(postgres->pid, steps[i].signal);
        while (clock_patience_ms() < deadline_ms) {
            if (is_gone(postgres, data))
                return 0;
            poll(NULL, 0, 20);
        }
    }
    return error_set(ERROR_UNAVAILABLE, "the private database (process %d) does not stop", (int)postgres->pid);
}
