/*
 * The load: N connections to an echo server on this machine, one message in flight on each.
 *
 * It keeps every connection busy (the next message leaves as soon as the last has come back whole), so a server
 * that is the slower of the two is never idle, and its CPU time divided by the messages is what a message costs.
 * That CPU time is read here, from the server's own process clock, at the same two moments as the number of
 * messages: the clock counts all threads of the server, also those that have ended, in nanoseconds.
 *
 * Cheap on purpose, so that the server is the bottleneck: edge-triggered registrations that are never changed, one
 * recv and one send per message, no allocation after the start. `load_cpu_seconds` beside `seconds` shows whether
 * it was: a load that is busy all the time measured itself.
 *
 * It talks to 127.0.0.1 only, and every run ends: by --seconds or --requests, else by an alarm.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_CONNECTIONS = 60000,
    MAX_SIZE = 16 << 20,
    MAX_EVENTS = 512,
    /* Connections made before one of them is asked for an echo: below every backlog in use (asyncio's is 100). */
    BATCH = 64,
    /* Latencies are counted in buckets 1/32 wide relative to their value: 2^5 per power of two of nanoseconds. */
    BUCKET_BITS = 5,
    BUCKETS = 64 << BUCKET_BITS,
};
/* Nothing asked for here may take longer; the run's own length comes on top. */
static const unsigned SETUP_LIMIT_SECONDS = 60;

struct connection {
    int fd;
    size_t unsent;    /* of the message in flight */
    size_t unread;    /* of its echo */
    int64_t started;  /* monotonic, ns */
};

struct run {
    int port;
    long connections, idle, size;
    double warmup, seconds;
    long requests;
    pid_t server;
};

struct moment {
    int64_t wall, load_cpu, server_cpu;
};

static uint64_t latencies[BUCKETS];

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "load: ");
    vfprintf(stderr, format, arguments);
    fprintf(stderr, "\n");
    va_end(arguments);
    exit(1);
}

static int64_t read_clock(clockid_t clock) {
    struct timespec at;
    if (clock_gettime(clock, &at) < 0) fail("cannot read a clock: %s", strerror(errno));
    return at.tv_sec * 1000000000LL + at.tv_nsec;
}

static int64_t now(void) { return read_clock(CLOCK_MONOTONIC); }

static struct moment take_moment(pid_t server) {
    clockid_t clock;
    struct moment taken = {.wall = now(), .load_cpu = read_clock(CLOCK_PROCESS_CPUTIME_ID), .server_cpu = 0};
    if (server > 0) {
        if (clock_getcpuclockid(server, &clock) != 0) fail("the server, process %d, has gone", (int)server);
        taken.server_cpu = read_clock(clock);
    }
    return taken;
}

/* ---- latencies: a histogram, so that memory does not depend on the length of the run ---- */

static unsigned bucket_of(uint64_t ns) {
    if (ns < (1u << BUCKET_BITS)) return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - BUCKET_BITS;
    return ((shift + 1) << BUCKET_BITS) + (unsigned)((ns >> shift) & ((1u << BUCKET_BITS) - 1));
}

static double middle_of(unsigned bucket) {
    if (bucket < (1u << BUCKET_BITS)) return bucket;
    unsigned shift = (bucket >> BUCKET_BITS) - 1;
    uint64_t low = (uint64_t)((1u << BUCKET_BITS) + (bucket & ((1u << BUCKET_BITS) - 1))) << shift;
    return (double)low + (double)(1ull << shift) / 2;
}

static double percentile_us(uint64_t total, double share) {
    uint64_t wanted = (uint64_t)(share * (double)total), seen = 0;
    for (unsigned bucket = 0; bucket < BUCKETS; bucket++) {
        seen += latencies[bucket];
        if (seen > wanted) return middle_of(bucket) / 1000;
    }
    return 0;
}

/* ---- connections ---- */

static int connect_one(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail("cannot make a socket (%s): raise `ulimit -n`", strerror(errno));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("cannot connect to 127.0.0.1:%d: %s", port, strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

/* Connections are accepted in order: an echo on the last one means that all before it have been. */
static void ask_for_echo(int fd) {
    char byte = 'x';
    if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 || recv(fd, &byte, 1, 0) != 1)
        fail("the server did not echo on a new connection: %s", errno ? strerror(errno) : "it closed it");
}

static void connect_all(const struct run *run, struct connection *connections, long count) {
    for (long i = 0; i < count; i++) {
        connections[i].fd = connect_one(run->port);
        if (i % BATCH == BATCH - 1 || i == count - 1) ask_for_echo(connections[i].fd);
    }
}

/* ---- the run ---- */

static void push(struct connection *connection, const char *message, size_t size) {
    while (connection->unsent) {
        ssize_t sent = send(connection->fd, message + (size - connection->unsent), connection->unsent,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) return; /* EPOLLOUT comes: its edge is armed by this EAGAIN */
        if (sent < 0) fail("send: %s", strerror(errno));
        connection->unsent -= (size_t)sent;
    }
}

static void begin(struct connection *connection, const char *message, size_t size, int64_t at) {
    connection->unsent = connection->unread = size;
    connection->started = at;
    push(connection, message, size);
}

/* Returns true if the echo is whole. Never asks for more than is owed, so a full recv needs no second one. */
static bool pull(struct connection *connection, const char *message, char *buffer, size_t size, bool check) {
    ssize_t got = recv(connection->fd, buffer, connection->unread, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return false;
    if (got <= 0) fail("the server closed a connection: %s", got ? strerror(errno) : "end of stream");
    if (check && memcmp(buffer, message + (size - connection->unread), (size_t)got))
        fail("the server sent back something else than it was sent");
    connection->unread -= (size_t)got;
    return connection->unread == 0;
}

static void report(const struct run *run, uint64_t count, int64_t longest, struct moment from, struct moment to) {
    double seconds = (double)(to.wall - from.wall) / 1e9;
    printf("{\"connections\": %ld, \"idle\": %ld, \"size\": %ld, \"requests\": %llu, \"seconds\": %.6f, "
           "\"throughput\": %.1f, \"load_cpu_seconds\": %.6f, \"server_cpu_seconds\": %.6f, "
           "\"latency_us\": {\"p50\": %.2f, \"p90\": %.2f, \"p99\": %.2f, \"p99.9\": %.2f, \"max\": %.2f}}\n",
           run->connections, run->idle, run->size, (unsigned long long)count, seconds, (double)count / seconds,
           (double)(to.load_cpu - from.load_cpu) / 1e9, (double)(to.server_cpu - from.server_cpu) / 1e9,
           percentile_us(count, 0.5), percentile_us(count, 0.9), percentile_us(count, 0.99),
           percentile_us(count, 0.999), (double)longest / 1000);
}

static void drive(const struct run *run, struct connection *connections, const char *message, char *buffer) {
    struct epoll_event events[MAX_EVENTS];
    size_t size = (size_t)run->size;
    int poller = epoll_create1(EPOLL_CLOEXEC);
    if (poller < 0) fail("epoll_create1: %s", strerror(errno));
    for (long i = 0; i < run->connections; i++) {
        struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &connections[i]};
        if (epoll_ctl(poller, EPOLL_CTL_ADD, connections[i].fd, &wanted) < 0)
            fail("epoll_ctl: %s", strerror(errno));
    }
    int64_t start = now(), warm = start + (int64_t)(run->warmup * 1e9), end = INT64_MAX;
    bool measuring = false;
    uint64_t count = 0;
    int64_t longest = 0;
    struct moment from = {0};
    for (long i = 0; i < run->connections; i++) begin(&connections[i], message, size, now());
    for (;;) {
        int ready = epoll_wait(poller, events, MAX_EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait: %s", strerror(errno));
        for (int i = 0; i < ready; i++) {
            struct connection *connection = events[i].data.ptr;
            if ((events[i].events & EPOLLOUT) && connection->unsent) push(connection, message, size);
            if (!(events[i].events & ~(uint32_t)EPOLLOUT)) continue;
            if (!pull(connection, message, buffer, size, !measuring)) continue;
            int64_t at = now();
            if (measuring) {
                int64_t latency = at - connection->started;
                if (latency > longest) longest = latency;
                latencies[bucket_of((uint64_t)latency)]++;
                count++;
            } else if (at >= warm) {
                measuring = true;
                from = take_moment(run->server);
                end = run->requests ? INT64_MAX : from.wall + (int64_t)(run->seconds * 1e9);
            }
            if (at >= end || (run->requests && count >= (uint64_t)run->requests)) {
                report(run, count, longest, from, take_moment(run->server));
                return;
            }
            begin(connection, message, size, at);
        }
    }
}

/* ---- the command line ---- */

static double number(const char *text, const char *option, double low, double high) {
    char *rest;
    double value = strtod(text, &rest);
    if (rest == text || *rest || !(value >= low && value <= high))
        fail("--%s must be a number from %g to %g, not '%s'", option, low, high, text);
    return value;
}

static struct run parse(int argc, char **argv) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'},    {"connections", 1, 0, 'c'}, {"idle", 1, 0, 'i'},       {"size", 1, 0, 's'},
        {"warmup", 1, 0, 'w'},  {"seconds", 1, 0, 't'},     {"requests", 1, 0, 'r'},   {"server-pid", 1, 0, 'P'},
        {0, 0, 0, 0},
    };
    struct run run = {.connections = 1, .size = 1024, .warmup = 0.1, .seconds = 1};
    for (int option, index; (option = getopt_long(argc, argv, "", options, &index)) != -1;) {
        const char *name = option == '?' ? "" : options[index].name;
        switch (option) {
        case 'p': run.port = (int)number(optarg, name, 1, 65535); break;
        case 'c': run.connections = (long)number(optarg, name, 1, MAX_CONNECTIONS); break;
        case 'i': run.idle = (long)number(optarg, name, 0, MAX_CONNECTIONS); break;
        case 's': run.size = (long)number(optarg, name, 1, MAX_SIZE); break;
        case 'w': run.warmup = number(optarg, name, 0, 60); break;
        case 't': run.seconds = number(optarg, name, 0.001, 60); break;
        case 'r': run.requests = (long)number(optarg, name, 1, 1e9); break;
        case 'P': run.server = (pid_t)number(optarg, name, 1, 1e9); break;
        default:
            fprintf(stderr, "usage: load --port P [--connections N] [--idle N] [--size BYTES] [--warmup SECONDS]\n"
                            "            [--seconds S | --requests N] [--server-pid PID]\n");
            exit(2);
        }
    }
    if (!run.port) fail("--port is missing: the port of an echo server on 127.0.0.1");
    return run;
}

int main(int argc, char **argv) {
    struct run run = parse(argc, argv);
    struct rlimit files;
    alarm(SETUP_LIMIT_SECONDS + (unsigned)(run.warmup + run.seconds) + 1);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    struct connection *connections = calloc((size_t)(run.connections + run.idle), sizeof *connections);
    char *message = malloc((size_t)run.size), *buffer = malloc((size_t)run.size);
    if (!connections || !message || !buffer) fail("out of memory");
    for (long i = 0; i < run.size; i++) message[i] = (char)('a' + i % 26);
    connect_all(&run, connections, run.idle);
    connect_all(&run, connections + run.idle, run.connections);
    drive(&run, connections + run.idle, message, buffer);
    return 0;
}
