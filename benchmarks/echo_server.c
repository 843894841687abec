/*
 * The floor: an echo server that does nothing but the system calls. One thread, one epoll, one recv and one send
 * per message; what a server in Python costs above this is what Python and its loop cost.
 *
 * --plan says how descriptors stay registered, for the question what a re-arm costs:
 *   level    registered once, level-triggered (the floor)
 *   edge     registered once, edge-triggered
 *   oneshot  level-triggered with EPOLLONESHOT: silent after each event until EPOLL_CTL_MOD, one call per message
 *
 * It expects a load with one message in flight per connection: a short send is an error, not a backlog.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_EVENTS = 512, BUFFER_BYTES = 256 * 1024, LIMIT_SECONDS = 300 };

static void fail(const char *what) {
    fprintf(stderr, "echo_server: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int listen_on_loopback(void) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) < 0 || listen(fd, 1024) < 0) fail("listen");
    if (getsockname(fd, (struct sockaddr *)&address, &length) < 0) fail("getsockname");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static void accept_all(int poller, int listener, uint32_t mask) {
    int fd, yes = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct epoll_event wanted = {.events = mask, .data.fd = fd};
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        if (epoll_ctl(poller, EPOLL_CTL_ADD, fd, &wanted) < 0) fail("epoll_ctl");
    }
    if (errno != EAGAIN && errno != ECONNABORTED) fail("accept");
}

/* Returns 0 once the connection has gone. */
static int echo(int fd) {
    static char buffer[BUFFER_BYTES];
    ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    if (got < 0 && errno == EAGAIN) return 1;
    if (got <= 0) {
        close(fd);
        return 0;
    }
    if (send(fd, buffer, (size_t)got, MSG_NOSIGNAL) != got && errno != EPIPE && errno != ECONNRESET) fail("send");
    return 1;
}

static uint32_t mask_of(int argc, char **argv) {
    const char *plan = argc == 3 && !strcmp(argv[1], "--plan") ? argv[2] : argc == 1 ? "level" : "";
    if (!strcmp(plan, "level")) return EPOLLIN;
    if (!strcmp(plan, "edge")) return EPOLLIN | EPOLLET;
    if (!strcmp(plan, "oneshot")) return EPOLLIN | EPOLLONESHOT;
    fprintf(stderr, "usage: echo_server [--plan level|edge|oneshot]\n");
    exit(2);
}

int main(int argc, char **argv) {
    uint32_t mask = mask_of(argc, argv);
    struct epoll_event events[MAX_EVENTS];
    struct rlimit files;
    alarm(LIMIT_SECONDS);
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    int listener = listen_on_loopback(), poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event wanted = {.events = EPOLLIN, .data.fd = listener};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &wanted) < 0) fail("epoll");
    for (;;) {
        int ready = epoll_wait(poller, events, MAX_EVENTS, -1);
        if (ready < 0 && errno != EINTR) fail("epoll_wait");
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                accept_all(poller, listener, mask);
            } else if (echo(fd) && (mask & EPOLLONESHOT)) {
                struct epoll_event again = {.events = mask, .data.fd = fd};
                if (epoll_ctl(poller, EPOLL_CTL_MOD, fd, &again) < 0) fail("epoll_ctl");
            }
        }
    }
}
