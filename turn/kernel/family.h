/* SPDX-License-Identifier: Apache-2.0
 *
 * The road of a packet of one address family: included once for IPv4 and once for IPv6, with FAMILY,
 * the family's number in STUN, and how its IP header is judged (is_plain) and rewritten (readdress).
 */
#define JOINED(stem, family) stem##family
#define JOIN(stem, family) JOINED(stem, family)
#define OF(stem) JOIN(stem, FAMILY)
#define INDICATION ((__u32)JOIN(INDICATION, FAMILY))
#define START (ETHERNET + (__u32)sizeof(struct OF(head)))
#define COPY(to, from) __builtin_memcpy(to, from, sizeof(to))

/* Source and destination lie side by side in both families. */
INLINE __u64 OF(sum_of_addresses)(const struct OF(head) *head)
{
    const __u32 *words = (void *)&head->ip.saddr;
    __u64 sum = 0;
#pragma unroll
    for (__u32 i = 0; i < 2 * sizeof head->ip.saddr / 4; i++)
        sum += words[i];
    return sum;
}

/* The sum of the pseudo header: what stands in the place of a checksum that a device is to compute. */
INLINE __u16 OF(pseudo_sum)(const struct OF(head) *head)
{
    return fold(OF(sum_of_addresses)(head) + head->udp.len + htons(IPPROTO_UDP));
}

/* The UDP header as it leaves, checksum corrected by what changes (RFC 1624). */
INLINE void OF(rewrite_udp)(const struct OF(head) *old, struct OF(head) *new,
                            const struct OF(way) *way, const struct step *step)
{
    const struct udphdr *before = &old->udp;
    struct udphdr *after = &new->udp;
    after->source = way->source_port;
    after->dest = way->destination_port;
    after->len = htons(length_after(step));
    after->check = 0;
    if (!before->check)
        return;
    __u64 sum = GONE16(before->check) + step->sum + OF(sum_of_addresses)(new);
    sum += GONE16(fold(OF(sum_of_addresses)(old)));
    sum += GONE16(before->source) + GONE16(before->dest) + 2 * GONE16(before->len);
    sum += (__u64)after->source + after->dest + 2 * (__u64)after->len;
    sum = (__u16)~fold(sum);
    after->check = sum ? sum : 0xffff;
}

/* The way of ChannelData from a client. */
INLINE struct OF(way) *OF(find_channel)(const struct OF(head) *old, const void *payload,
                                        struct step *step)
{
    struct OF(key) key = {.source_port = old->udp.source, .destination_port = old->udp.dest};
    COPY(key.source, &old->ip.saddr);
    COPY(key.destination, &old->ip.daddr);
    key.channel = unwrap_channel(payload, ntohs(old->udp.len), step);
    return key.channel ? lookup(&OF(ways), &key) : 0;
}

/* The way of a Send indication from a client; 0: it is not of the plain shape, or has none. */
INLINE struct OF(way) *OF(find_named)(context *ctx, const struct OF(head) *old,
                                      struct step *step)
{
    void *data;
    if (!view(ctx, START + INDICATION, &data))
        return 0;
    const struct stun *head = data + START;
    const __be32 *words = data + START;
    step->taken_front = INDICATION;
    if (!is_plain_send(head, data + START + INDICATION - PAD, STUN_FAMILY, ntohs(old->udp.len), step))
        return 0;
    struct OF(name) name = {
        .source_port = old->udp.source,
        .destination_port = old->udp.dest,
        .peer_port = head->port ^ htons(COOKIE >> 16),
    };
    COPY(name.source, &old->ip.saddr);
    COPY(name.destination, &old->ip.daddr);
#pragma unroll
    for (__u32 i = 0; i < sizeof name.peer / 4; i++) /* masked by cookie and transaction id */
        name.peer[i] = words[sizeof *head / 4 + i] ^ words[1 + i];
    step->sum = 0;
#pragma unroll
    for (__u32 i = 0; i < INDICATION / 4; i++)
        step->sum += GONE(words[i]);
    if (step->taken_tail) { /* padding, which may hold anything */
        __u32 word, kept = PAD - step->taken_tail;
        if (load(ctx, START + INDICATION + step->payload - kept, &word, sizeof word))
            return 0;
        step->sum += GONE(word >> 8 * kept << 8 * kept);
    }
    __u32 behind = ntohs(old->udp.len) - UDP - INDICATION - step->payload - step->taken_tail;
    if (behind) {
        __u64 gone = 0;
        if (behind == FINGERPRINT_BYTES)
            gone = fingerprint_of(ctx, START, ntohs(old->udp.len) - UDP);
        if (!gone)
            return 0;
        step->taken_tail += behind;
        step->sum += gone;
    }
    return lookup(&OF(names), &name);
}

/* The way of a packet from a peer, by the addresses that it has or would have. */
INLINE struct OF(way) *OF(find_peer)(const void *source, const void *destination, __be16 source_port,
                                     __be16 destination_port)
{
    struct OF(key) key = {.source_port = source_port, .destination_port = destination_port};
    COPY(key.source, source);
    COPY(key.destination, destination);
    return lookup(&OF(ways), &key);
}

INLINE void OF(wrap)(const struct OF(way) *way, struct step *step)
{
    if (way->channel)
        wrap_in_channel(way->channel, step);
    else
        wrap_in_indication(way->header, INDICATION, step);
}

/* Write what stands before the payload, and who gets it. 0: it cannot be. */
INLINE int OF(write)(context *ctx, const struct OF(head) *new, const struct OF(way) *way,
                     const struct step *step, const struct hop *ahead)
{
    void *data;
    if (!step->put_front) {
        if (!view(ctx, START, &data))
            return 0;
    } else if (way->channel) {
        if (!view(ctx, START + CHANNEL, &data))
            return 0;
        __be16 *header = data + START;
        header[0] = way->channel;
        header[1] = htons(step->payload);
    } else {
        if (!view(ctx, START + INDICATION, &data))
            return 0;
        struct stun *header = data + START;
        struct data *last = data + START + INDICATION - PAD;
        __builtin_memcpy(header, way->header, INDICATION);
        header->length = htons(INDICATION - STUN + step->payload + step->put_tail);
        last->length = htons(step->payload);
    }
    *(struct OF(head) *)(data + ETHERNET) = *new;
    ((struct ethhdr *)data)->h_proto = htons(FAMILY == 4 ? ETH_P_IP : ETH_P_IPV6);
    if (ahead->road != LOCAL)
        __builtin_memcpy(data, ahead->head, sizeof ahead->head);
    return 1;
}

INLINE int OF(relay)(context *ctx)
{
    void *data;
    if (!view(ctx, START + CHANNEL, &data) || !OF(is_plain)(ctx, data + ETHERNET))
        return UP;
    struct OF(head) old = *(struct OF(head) *)(data + ETHERNET), new;
    struct OF(way) *way, *next = 0;
    struct step step = {};
    if (!is_listening(old.udp.dest)) {
        way = OF(find_peer)(&old.ip.saddr, &old.ip.daddr, old.udp.source, old.udp.dest);
        if (!way)
            return UP;
        step.payload = ntohs(old.udp.len) - UDP;
        OF(wrap)(way, &step);
    } else {
        if (*(__be16 *)(data + START) != htons(SEND_TYPE))
            way = OF(find_channel)(&old, data + START, &step);
        else
            way = OF(find_named)(ctx, &old, &step);
        if (!way)
            return UP;
        /* The peer may be a client of this relay: what would come out there, at once. */
        if (is_local(way->ahead))
            next = OF(find_peer)(way->source, way->destination, way->source_port,
                                 way->destination_port);
        if (next)
            OF(wrap)(next, &step);
    }
    struct OF(way) *last = next ? next : way;
    struct meter *meter = living(way->meter), *next_meter = next ? living(next->meter) : meter;
    if (!meter || !next_meter || !came_from(ctx, way->behind))
        return UP;
    struct hop *ahead = next_hop(ctx, last->ahead, sizeof old.ip + length_after(&step));
    if (!ahead || !can_leave(ahead))
        return UP;
    /* A checksum that a device is still to compute stands for the pseudo header alone. */
    __u16 doubtful = old.udp.check == OF(pseudo_sum)(&old) ? old.udp.check : 0;
    if (doubtful && !TELLS_PARTIAL)
        return UP;
    int paid = pay(meter, step.payload);
    if (paid == TAKEN && next) {
        paid = pay(next_meter, step.payload);
        if (paid == EMPTY) /* the one has sent it, the other may not have it */
            count(meter, step.payload);
    }
    if (paid != TAKEN)
        return paid == EMPTY ? LOST : UP;
    OF(readdress)(&old, &new, last, &step);
    OF(rewrite_udp)(&old, &new, last, &step);
    int resized = resize(ctx, ETHERNET + offsetof(struct OF(head), udp.check), doubtful, &step);
    if (resized == UNCHANGED)
        return UP;
    if (resized == PSEUDO)
        new.udp.check = OF(pseudo_sum)(&new);
    if (resized == SPOILED || !OF(write)(ctx, &new, last, &step, ahead)) {
        __sync_fetch_and_add(&meter->spoiled, 1);
        return LOST;
    }
    count(meter, step.payload);
    if (next)
        count(next_meter, step.payload);
    return leave(ahead);
}

#undef START
#undef INDICATION
#undef COPY
#undef OF
#undef JOIN
#undef JOINED
