/* A Modbus TCP server that costs little and stamps what it serves, so that every value can be traced to its read.
 *
 *   load_server DEVICES [HOST]
 *
 * Listens on DEVICES ephemeral ports, prints them on one line, and serves until its standard input is closed. Each unit
 * id behind a port is a device of its own. Function 3 (read holding registers) of any range within 0..65535:
 *
 *   registers 0-3   microseconds since the epoch when the reply was made, big-endian 64 bit
 *   registers 4-5   how many reads this device has answered, big-endian 32 bit, starting at 1
 *   register  n>5   (reads * 31 + n) modulo 65536
 *
 * Anything else is answered with exception 1. It shares no code with the product, nor with any Modbus library.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FD 65536
#define ADU 260

struct connection {
    int device, have;
    uint8_t data[4 * ADU];
};

static struct connection *connections[MAX_FD];
static int listening_for[MAX_FD]; /* device + 1 of a listening socket */
static uint32_t *reads;

static void put16(uint8_t *at, unsigned value) { at[0] = value >> 8; at[1] = value; }
static unsigned get16(const uint8_t *at) { return at[0] << 8 | at[1]; }

static unsigned reg(unsigned n, uint64_t now, uint32_t count) {
    if (n < 4) return now >> (48 - 16 * n) & 0xFFFF;
    if (n < 6) return count >> (16 - 16 * (n - 4)) & 0xFFFF;
    return (count * 31u + n) & 0xFFFF;
}

/* Writes the reply to one request into `out`; returns its length. */
static int answer(int device, const uint8_t *request, int length, uint8_t *out) {
    memcpy(out, request, 7); /* transaction, protocol, length, unit */
    unsigned start = get16(request + 8), count = get16(request + 10);
    if (request[7] != 3 || length != 12 || count < 1 || count > 125 || start + count > 65536) {
        put16(out + 4, 3);
        out[7] = request[7] | 0x80;
        out[8] = 1;
        return 9;
    }
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    uint64_t now = (uint64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
    uint32_t served = ++reads[256 * device + request[6]];
    put16(out + 4, 3 + 2 * count);
    out[7] = 3;
    out[8] = 2 * count;
    for (unsigned i = 0; i < count; i++) put16(out + 9 + 2 * i, reg(start + i, now, served));
    return 9 + 2 * count;
}

static void drop(int fd) {
    close(fd);
    free(connections[fd]);
    connections[fd] = NULL;
}

static void serve(int fd) {
    struct connection *c = connections[fd];
    ssize_t got = read(fd, c->data + c->have, sizeof c->data - c->have);
    if (got <= 0) {
        drop(fd);
        return;
    }
    c->have += got;
    int at = 0;
    while (c->have - at >= 8) {
        int length = 6 + get16(c->data + at + 4);
        if (length < 8 || length > ADU) {
            drop(fd);
            return;
        }
        if (c->have - at < length) break;
        uint8_t out[ADU + 16];
        int size = answer(c->device, c->data + at, length, out);
        if (write(fd, out, size) != size) {
            drop(fd);
            return;
        }
        at += length;
    }
    c->have -= at;
    memmove(c->data, c->data + at, c->have);
}

static void greet(int listener, int loop) {
    int fd = accept(listener, NULL, NULL), on = 1;
    if (fd < 0) return;
    if (fd >= MAX_FD) {
        close(fd);
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    connections[fd] = calloc(1, sizeof(struct connection));
    connections[fd]->device = listening_for[listener] - 1;
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
}

int main(int argc, char **argv) {
    int devices = argc > 1 ? atoi(argv[1]) : 0;
    if (devices < 1 || devices > 10000) {
        fprintf(stderr, "usage: load_server DEVICES [HOST]\n");
        return 2;
    }
    reads = calloc(256 * devices, sizeof *reads);
    int loop = epoll_create1(0);
    for (int i = 0; i < devices; i++) {
        struct sockaddr_in address = {.sin_family = AF_INET};
        socklen_t size = sizeof address;
        inet_pton(AF_INET, argc > 2 ? argv[2] : "127.0.0.1", &address.sin_addr);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 64) || fd >= MAX_FD) {
            perror("load_server");
            return 1;
        }
        getsockname(fd, (struct sockaddr *)&address, &size);
        listening_for[fd] = i + 1;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(loop, EPOLL_CTL_ADD, fd, &event);
        printf("%d%c", ntohs(address.sin_port), i == devices - 1 ? '\n' : ' ');
    }
    fflush(stdout);
    struct epoll_event stdin_event = {.events = EPOLLIN | EPOLLHUP, .data.fd = 0};
    epoll_ctl(loop, EPOLL_CTL_ADD, 0, &stdin_event);
    for (;;) {
        struct epoll_event events[64];
        int n = epoll_wait(loop, events, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == 0) return 0;
            if (listening_for[fd]) greet(fd, loop);
            else if (connections[fd]) serve(fd);
        }
        if (n < 0 && errno != EINTR) return 1;
    }
}
