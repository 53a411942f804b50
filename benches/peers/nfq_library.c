// A handler as libnetfilter_queue's documentation has it: one packet received, one verdict sent.
//
//   nfq_library QUEUE MAXLEN MARK
//
// Answers every packet of the queue with NF_REPEAT and the mark, until SIGTERM.
#include <arpa/inet.h>
#include <errno.h>
#include <libnetfilter_queue/libnetfilter_queue.h>
#include <linux/netfilter.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { COPIED = 128, PACKET_COST = 1024, MESSAGE = 4096 };

static int answer(struct nfq_q_handle *queue, struct nfgenmsg *message, struct nfq_data *data, void *mark)
{
    (void)message;
    unsigned char *payload;
    struct nfqnl_msg_packet_hdr *header = nfq_get_msg_packet_hdr(data);
    if (!header || nfq_get_payload(data, &payload) < 0)
        return 0;
    return nfq_set_verdict2(queue, ntohl(header->packet_id), NF_REPEAT, *(uint32_t *)mark, 0, NULL);
}

int main(int count, char **words)
{
    if (count != 4) {
        fprintf(stderr, "nfq_library QUEUE MAXLEN MARK\n");
        return 2;
    }
    uint32_t maxlen = strtoul(words[2], NULL, 0), mark = strtoul(words[3], NULL, 0);
    struct nfq_handle *library = nfq_open();
    if (!library) {
        perror("nfq_open");
        return 1;
    }
    struct nfq_q_handle *queue = nfq_create_queue(library, strtoul(words[1], NULL, 0), answer, &mark);
    if (!queue || nfq_set_mode(queue, NFQNL_COPY_PACKET, COPIED) < 0 || nfq_set_queue_maxlen(queue, maxlen) < 0) {
        perror("queue");
        return 1;
    }
    int room = maxlen * PACKET_COST / 2; // The kernel doubles it.
    setsockopt(nfq_fd(library), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    char bytes[MESSAGE];
    for (;;) {
        ssize_t length = recv(nfq_fd(library), bytes, sizeof bytes, 0);
        if (length >= 0)
            nfq_handle_packet(library, bytes, length);
        else if (errno != ENOBUFS && errno != EINTR)
            return 1;
    }
}
