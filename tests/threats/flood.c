// A flood of UDP datagrams from forged sources, at a steady rate. Needs CAP_NET_RAW.
//
// usage: flood DESTINATION PORT FIRST_SOURCE SOURCES RATE COUNT HEX_PAYLOAD...
//
// Each datagram has the next source address of FIRST_SOURCE … FIRST_SOURCE + SOURCES - 1, a source
// port that changes with each, and the next payload; where a payload is a STUN message, bytes 8 to
// 19 (its transaction id) change too. Sends COUNT of them, or as many as it can until SIGTERM;
// prints how many could be sent.
#include <arpa/inet.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { MOST_PAYLOADS = 64, MOST_BYTES = 1400 };

struct packet {
    struct iphdr ip;
    struct udphdr udp;
    uint8_t payload[MOST_BYTES];
} __attribute__((packed));

static volatile sig_atomic_t over;

static void end(int number)
{
    (void)number;
    over = 1;
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static int read_hex(const char *text, uint8_t *bytes)
{
    int size = 0;
    unsigned value;
    for (; size < MOST_BYTES && sscanf(text + 2 * size, "%2x", &value) == 1; size++)
        bytes[size] = value;
    return size;
}

int main(int count, char **words)
{
    static uint8_t payloads[MOST_PAYLOADS][MOST_BYTES];
    int sizes[MOST_PAYLOADS], kinds = count - 7;
    if (kinds < 1 || kinds > MOST_PAYLOADS) {
        fprintf(stderr, "usage: see the head of flood.c\n");
        return 2;
    }
    for (int i = 0; i < kinds; i++)
        sizes[i] = read_hex(words[7 + i], payloads[i]);
    int sock = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);
    if (sock < 0) {
        perror("socket");
        return 1;
    }
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = inet_addr(words[1])};
    uint32_t first = ntohl(inet_addr(words[3])), sources = strtoul(words[4], NULL, 10);
    double rate = atof(words[5]), begin = seconds_now();
    unsigned long number = 0, failed = 0, wanted = strtoul(words[6], NULL, 10);
    struct packet packet = {
        .ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP,
               .daddr = to.sin_addr.s_addr},
        .udp = {.dest = htons(atoi(words[2]))},
    };
    signal(SIGTERM, end);
    while (number < wanted && !over) {
        if (number >= (seconds_now() - begin) * rate) {
            nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
            continue;
        }
        int kind = number % kinds, size = sizes[kind];
        packet.ip.saddr = htonl(first + number % sources);
        packet.ip.tot_len = htons(28 + size);
        packet.udp.source = htons(1024 + number * 7919 % 64000);
        packet.udp.len = htons(8 + size);
        memcpy(packet.payload, payloads[kind], size);
        if (size >= 20 && packet.payload[0] < 4)
            memcpy(packet.payload + 8, &number, sizeof number);
        failed += sendto(sock, &packet, 28 + size, 0, (void *)&to, sizeof to) < 0;
        number++;
    }
    printf("%lu\n", number - failed);
    return 0;
}
