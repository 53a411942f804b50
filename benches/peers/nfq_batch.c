// The least that a handler can do: netlink by hand, 64 packets a call, their ids read, and nothing else.
//
//   nfq_batch QUEUE MAXLEN MARK batch|multi|drop
//
// Answers every packet of the queue with NF_REPEAT and the mark, until SIGTERM: with one verdict for a whole
// batch, or with one for each packet, all in one call, which leaves the bits of a mark that a packet has already. `drop`:
// one for each packet, and those that have a mark are dropped.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_queue.h>
#include <linux/netlink.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

enum { BATCH = 64, MESSAGE = 1024, COPIED = 128, PACKET_COST = 1024, REPLY = 64 };

struct request {
    char *bytes;
    size_t length;
};

static void begin(struct request *to, int type, int flags, uint16_t queue)
{
    struct nlmsghdr header = {.nlmsg_type = NFNL_SUBSYS_QUEUE << 8 | type, .nlmsg_flags = NLM_F_REQUEST | flags};
    struct nfgenmsg family = {.version = NFNETLINK_V0, .res_id = htons(queue)};
    memcpy(to->bytes, &header, sizeof header);
    memcpy(to->bytes + NLMSG_HDRLEN, &family, sizeof family);
    to->length = NLMSG_HDRLEN + sizeof family;
}

static void add(struct request *to, int type, const void *value, size_t length)
{
    struct nlattr header = {.nla_type = type, .nla_len = NLA_HDRLEN + length};
    memcpy(to->bytes + to->length, &header, sizeof header);
    memcpy(to->bytes + to->length + NLA_HDRLEN, value, length);
    to->length += NLA_ALIGN(header.nla_len);
}

static size_t end(struct request *to)
{
    uint32_t length = to->length;
    memcpy(to->bytes, &length, sizeof length);
    return length;
}

static size_t drop(char *bytes, uint16_t queue, uint32_t id)
{
    struct request to = {.bytes = bytes};
    struct nfqnl_msg_verdict_hdr header = {.verdict = htonl(NF_DROP), .id = htonl(id)};
    begin(&to, NFQNL_MSG_VERDICT, 0, queue);
    add(&to, NFQA_VERDICT_HDR, &header, sizeof header);
    return end(&to);
}

static size_t repeat(char *bytes, int type, uint16_t queue, uint32_t id, uint32_t mark)
{
    struct request to = {.bytes = bytes};
    struct nfqnl_msg_verdict_hdr header = {.verdict = htonl(NF_REPEAT), .id = htonl(id)};
    uint32_t mark_be = htonl(mark);
    begin(&to, type, 0, queue);
    add(&to, NFQA_VERDICT_HDR, &header, sizeof header);
    add(&to, NFQA_MARK, &mark_be, sizeof mark_be);
    return end(&to);
}

static int opened(uint16_t queue, uint32_t maxlen)
{
    int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_NETFILTER), room = maxlen * PACKET_COST / 2;
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    char bytes[256];
    struct request to = {.bytes = bytes};
    struct nfqnl_msg_config_cmd bind_it = {.command = NFQNL_CFG_CMD_BIND};
    struct nfqnl_msg_config_params params = {.copy_range = htonl(COPIED), .copy_mode = NFQNL_COPY_PACKET};
    uint32_t maxlen_be = htonl(maxlen), flags = htonl(NFQA_CFG_F_GSO);
    begin(&to, NFQNL_MSG_CONFIG, 0, queue);
    add(&to, NFQA_CFG_CMD, &bind_it, sizeof bind_it);
    add(&to, NFQA_CFG_FLAGS, &flags, sizeof flags);
    add(&to, NFQA_CFG_MASK, &flags, sizeof flags);
    add(&to, NFQA_CFG_QUEUE_MAXLEN, &maxlen_be, sizeof maxlen_be);
    add(&to, NFQA_CFG_PARAMS, &params, sizeof params);
    if (fd < 0 || connect(fd, (struct sockaddr *)&kernel, sizeof kernel) || send(fd, bytes, end(&to), 0) < 0) {
        perror("queue");
        exit(1);
    }
    return fd;
}

// The id of a packet's message; 0 for any other. Its mark, too, if that is wanted.
static uint32_t id_of(const char *message, size_t length, uint32_t *mark)
{
    struct nlmsghdr header;
    uint32_t id = 0;
    memcpy(&header, message, sizeof header);
    if (header.nlmsg_type != (NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET))
        return 0;
    for (size_t at = NLMSG_HDRLEN + sizeof(struct nfgenmsg); at + NLA_HDRLEN < length;) {
        struct nlattr attribute;
        memcpy(&attribute, message + at, sizeof attribute);
        if (attribute.nla_type == NFQA_PACKET_HDR) {
            struct nfqnl_msg_packet_hdr packet;
            memcpy(&packet, message + at + NLA_HDRLEN, sizeof packet);
            id = ntohl(packet.packet_id);
            if (!mark)
                return id;
        } else if (attribute.nla_type == NFQA_MARK) {
            memcpy(mark, message + at + NLA_HDRLEN, sizeof *mark);
            *mark = ntohl(*mark);
            return id;
        }
        at += NLA_ALIGN(attribute.nla_len);
    }
    return id;
}

int main(int count, char **words)
{
    if (count != 5) {
        fprintf(stderr, "nfq_batch QUEUE MAXLEN MARK batch|multi|drop\n");
        return 2;
    }
    uint16_t queue = strtoul(words[1], NULL, 0);
    uint32_t mark = strtoul(words[3], NULL, 0);
    int is_batch = !strcmp(words[4], "batch"), may_drop = !strcmp(words[4], "drop");
    int fd = opened(queue, strtoul(words[2], NULL, 0));
    static char messages[BATCH][MESSAGE], replies[BATCH * REPLY];
    struct iovec places[BATCH];
    struct mmsghdr headers[BATCH] = {0};
    for (int i = 0; i < BATCH; i++) {
        places[i] = (struct iovec){messages[i], MESSAGE};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &places[i], .msg_iovlen = 1};
    }
    for (;;) {
        int got = recvmmsg(fd, headers, BATCH, MSG_WAITFORONE, NULL);
        if (got < 0 && errno != ENOBUFS && errno != EINTR)
            return 1;
        size_t length = 0;
        uint32_t last = 0;
        for (int i = 0; i < got; i++) {
            uint32_t arrived = 0, id = id_of(messages[i], headers[i].msg_len, is_batch ? NULL : &arrived);
            if (id && arrived && may_drop)
                length += drop(replies + length, queue, id);
            else if (id && !is_batch)
                length += repeat(replies + length, NFQNL_MSG_VERDICT, queue, id, arrived | mark);
            last = id ? id : last;
        }
        if (last && is_batch)
            length = repeat(replies, NFQNL_MSG_VERDICT_BATCH, queue, last, mark);
        if (length)
            send(fd, replies, length, 0);
    }
}
