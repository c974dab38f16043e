// What all parts of the load generator share: the options, the clients, addresses.
#pragma once

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#define COOKIE 0x2112A442u
#define die(...)                                                                                   \
    do {                                                                                           \
        fprintf(stderr, __VA_ARGS__);                                                              \
        fprintf(stderr, " (%s)\n", strerror(errno));                                               \
        exit(1);                                                                                   \
    } while (0)
typedef union {
    struct sockaddr sa;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} addr_t;
typedef struct {
    int fd, state, tries;
    uint8_t tid[12];
    uint64_t t_tx;
    char nonce[160];
    int nonce_len;
    addr_t relay;
    uint8_t req[600];
    int req_len;
} cl_t;
static cl_t *cl;
static int N = 1;          // clients, an allocation each (-n)
static int K = 1;          // sockets of peers (-K)
static int L = 172;        // bytes of payload (-l)
static int burst = 1;      // packets a socket at once (-b)
static int conc = 64;      // allocations that are asked for at a time (-C)
static int window = 0;     // packets on their way at a time, 0: any number (-W)
static double rate = 0;    // packets a second in all, 0: as fast as it goes (-r)
static double dur = 3;     // seconds (-d)
static double warm = 0;    // seconds before what is measured (-Z)
static int dir = 1;        // 1: client to peer, 2: peer to client, 3: both (-D)
static int ind = 0;        // indications in place of ChannelData (-m ind)
static int direct = 0;     // without a relay (-X)
static int alloc_only = 0; // (-N)
static int verbose = 0;    // (-v)
static int pin = -1;       // the CPU to run on (-k)
static addr_t srv, cbind, peer0;    // the relay (-s), whence (-c), the peer (-p)
static const char *nsA, *nsB;       // network namespaces of clients (-A) and peers (-B)
static int pids[16], npid = 0;      // processes of the relay (-P)
static char user[256] = "u", pass[256] = "p", realm[256];
static addr_t *peers;
static int *pfd;
static uint8_t key[16]; // RFC 8489 §9.2.2, once the realm is known
static int have_key = 0;
static int ep;
static uint32_t trial; // packets of an earlier one are not counted
static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static socklen_t alen(addr_t *a) {
    return a->sa.sa_family == AF_INET ? sizeof a->v4 : sizeof a->v6;
}

static void parse(const char *s, addr_t *a, int defport) {
    char b[128];
    snprintf(b, sizeof b, "%s", s);
    int port = defport;
    char *at = strchr(b, '@');
    if (at) {
        *at = 0;
        port = atoi(at + 1);
    }
    memset(a, 0, sizeof *a);
    if (inet_pton(AF_INET6, b, &a->v6.sin6_addr) == 1) {
        a->v6.sin6_family = AF_INET6;
        a->v6.sin6_port = htons(port);
        return;
    }
    char *c = strchr(b, ':');
    if (c) {
        *c = 0;
        port = atoi(c + 1);
    }
    if (inet_pton(AF_INET, b, &a->v4.sin_addr) != 1)
        die("bad addr %s", s);
    a->v4.sin_family = AF_INET;
    a->v4.sin_port = htons(port);
}

static void enterns(const char *n) {
    if (!n)
        return;
    char p[256];
    snprintf(p, sizeof p, "/var/run/netns/%s", n);
    int f = open(p, O_RDONLY);
    if (f < 0 || setns(f, CLONE_NEWNET))
        die("setns %s", n);
    close(f);
}
