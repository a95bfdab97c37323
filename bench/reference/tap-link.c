/*
 * One end of a link between two TAP interfaces over the rings of protocol 0x0001: what packages/net does, in C, with
 * the same bursts and the same policy of busy polling.
 *
 *     tap-link ID SECTION_SIZE MTU BUSY_POLL_US HEADER_SIZE
 *
 * Descriptors: 0 whose end of file ends it, as SIGTERM and SIGINT do; 3 the memory, output section 0 and then 1;
 * 4 its own doorbell; 5 that of the other end; 6 its TAP. Prints "ready" when its section is initialised.
 *
 * There is no handshake: the parent process starts both ends with zeroed memory, which is all that initialisation
 * would do, and restarts both after a change. With a HEADER_SIZE of 10 the TAP has struct virtio_net_hdr
 * before each frame, and so have the rings, as with offloads in common (section 14); with 0 neither has.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

enum { STDIN_FD, MEMORY_FD = 3, DOORBELL_FD, PEER_DOORBELL_FD, TAP_FD };

#define BURST_FRAMES 64
#define BURST_BYTES 0x20000
#define MIN_FRAME 14
#define FRAME_OVERHEAD 18
#define MAX_FRAME (65535 + FRAME_OVERHEAD)
#define HEADER_SIZE 10
#define ROUNDS_BETWEEN_EVENTS 16

/* Whether waits have been short of late, and so whether to look for work before going to sleep. Times in ns. */
struct busy_poll {
	double limit, average, idle_since;
};

struct link {
	struct ring_tx tx;
	struct ring_rx rx;
	struct busy_poll busy_poll;
	/* In bytes: before each frame, and of the longest frame with it. */
	uint32_t header_size, max_frame;
	int epoll_fd, signal_fd;
	/* The TAP may have frames; there was no room for them; it is not waited for. */
	bool tap_ready, full, tap_muted;
	bool stopping;
};

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void worked(struct busy_poll *poll)
{
	double waited;

	if (poll->idle_since == 0)
		return;
	waited = now() - poll->idle_since;
	/* A long wait is cut off, so that a single one is soon forgotten. */
	if (waited > 8 * poll->limit)
		waited = 8 * poll->limit;
	poll->average += (waited - poll->average) / 8;
	poll->idle_since = 0;
}

static bool look_again(struct busy_poll *poll)
{
	double time;

	if (poll->limit == 0)
		return false;
	time = now();
	if (poll->idle_since == 0)
		poll->idle_since = time;
	return poll->average < 4 * poll->limit && time - poll->idle_since < poll->limit;
}

/* Section 14, "What the receiver checks". */
static bool header_is_right(const uint8_t header[HEADER_SIZE], uint32_t length)
{
	const uint8_t flags = header[0], type = header[1] & 0x7f;
	const uint32_t hdr_len = header[2] | header[3] << 8, gso_size = header[4] | header[5] << 8;
	const uint32_t start = header[6] | header[7] << 8, offset = header[8] | header[9] << 8;
	const bool udp = header[1] == 5;

	if ((flags & ~3) != 0 || hdr_len > length)
		return false;
	if ((flags & 1) != 0 && (start < MIN_FRAME || start + offset + 2 > length))
		return false;
	if (header[1] == 0)
		return true;
	if (type != 1 && type != 4 && !udp)
		return false;
	return (flags & 1) != 0 && (udp ? length - start - 8 <= 128 * gso_size : gso_size >= 8) && start >= (type == 4 ? 54 : 34) &&
	       start + (udp ? 8 : 20) <= length && offset == (udp ? 6 : 16);
}

/* Writes a frame to the TAP. False if it was dropped. */
static bool deliver(struct link *link, uint8_t *frame, uint32_t length)
{
	const uint32_t header_size = link->header_size;
	uint8_t header[HEADER_SIZE];
	struct iovec parts[] = { { header, HEADER_SIZE }, { frame + HEADER_SIZE, length - HEADER_SIZE } };

	if (length < header_size + MIN_FRAME || length > header_size + MAX_FRAME)
		return false;
	if (header_size == 0)
		return write(TAP_FD, frame, length) == (ssize_t)length;
	/* What is checked must be what the kernel gets: the other end can change its own at any time. */
	memcpy(header, frame, HEADER_SIZE);
	return header_is_right(header, length - HEADER_SIZE) && writev(TAP_FD, parts, 2) == (ssize_t)length;
}

static uint32_t receive(struct link *link)
{
	struct ring_rx *rx = &link->rx;
	uint32_t waiting = ring_rx_available(rx), frames = 0, bytes = 0;

	while (frames < BURST_FRAMES && frames < waiting && bytes < BURST_BYTES) {
		if (!ring_rx_next(rx))
			break;
		frames++;
		if (deliver(link, rx->peer.base + rx->offset, rx->length))
			bytes += rx->length;
	}
	return frames;
}

static uint32_t transmit(struct link *link)
{
	struct ring_tx *tx = &link->tx;
	uint32_t frames = 0, bytes = 0;

	ring_tx_reclaim(tx);
	while (frames < BURST_FRAMES && bytes < BURST_BYTES) {
		/* A byte more than there may be shows frames that are too long. */
		const uint32_t slot = ring_tx_reserve(tx, link->max_frame + 1);
		ssize_t length;

		link->full = slot == 0;
		if (link->full) {
			link->tap_ready = false;
			break;
		}
		length = read(TAP_FD, tx->own.base + slot, link->max_frame + 1);
		if (length < 0) {
			/* EIO: the interface is down. */
			if (errno != EAGAIN && errno != EINTR && errno != EIO)
				err(1, "TAP");
			link->tap_ready = false;
			break;
		}
		frames++;
		bytes += (uint32_t)length;
		if ((uint32_t)length <= link->max_frame)
			ring_tx_commit(tx, (uint32_t)length);
	}
	return frames;
}

static void check(const struct link *link)
{
	const enum ring_violation violation = link->rx.violation ? link->rx.violation : link->tx.violation;

	if (violation != RING_OK)
		errx(1, "the other end has violated the protocol (%d)", violation);
}

/* A burst in each direction. Returns whether anything moved. */
static bool move(struct link *link)
{
	static const uint64_t one = 1;
	const uint32_t received = receive(link);
	uint32_t sent = 0;
	bool completions, frames;

	/* What the interface was given may have made it answer. */
	if (received > 0)
		link->tap_ready = true;
	if (link->tap_ready)
		sent = transmit(link);
	completions = ring_rx_flush(&link->rx);
	frames = ring_tx_flush(&link->tx);
	/* EAGAIN: the counter is at its limit, and the other end awake. */
	if ((completions || frames) && write(PEER_DOORBELL_FD, &one, sizeof(one)) < 0 && errno != EAGAIN)
		err(1, "doorbell");
	check(link);
	return received + sent > 0;
}

/* Requests interrupts. False if something has arrived in the meantime. */
static bool prepare_to_sleep(struct link *link)
{
	bool idle = ring_rx_wait_for_frames(&link->rx);

	if (link->full) {
		link->full = ring_tx_wait_for_room(&link->tx, link->max_frame + 1);
		if (!link->full) {
			link->tap_ready = true;
			idle = false;
		}
	}
	check(link);
	return idle;
}

static void watch(const struct link *link, int operation, int fd, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	if (epoll_ctl(link->epoll_fd, operation, fd, &event) < 0)
		err(1, "epoll_ctl of descriptor %d", fd);
}

/* An interface that has to wait for room must not wake this process. */
static void mute_tap(struct link *link, bool mute)
{
	if (mute == link->tap_muted)
		return;
	link->tap_muted = mute;
	watch(link, EPOLL_CTL_MOD, TAP_FD, mute ? 0 : EPOLLIN);
}

static void wait_for_events(struct link *link, int timeout)
{
	struct epoll_event events[4];
	uint64_t counter;
	const int count = epoll_wait(link->epoll_fd, events, 4, timeout);

	for (int i = 0; i < count; i++) {
		if (events[i].data.fd == TAP_FD)
			link->tap_ready = true;
		else if (events[i].data.fd != DOORBELL_FD)
			link->stopping = true;
		else if (read(DOORBELL_FD, &counter, sizeof(counter)) < 0 && errno != EAGAIN)
			err(1, "own doorbell");
	}
}

static void run(struct link *link)
{
	for (uint32_t rounds = 1; !link->stopping; rounds++) {
		if (rounds % ROUNDS_BETWEEN_EVENTS == 0)
			wait_for_events(link, 0);
		if (move(link)) {
			worked(&link->busy_poll);
		} else if (look_again(&link->busy_poll)) {
			link->tap_ready = true;
			/* The sender may be waiting for this processor. */
			sched_yield();
		} else if (prepare_to_sleep(link)) {
			mute_tap(link, link->full);
			wait_for_events(link, -1);
		}
	}
}

static void set_up_events(struct link *link)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	if (sigprocmask(SIG_BLOCK, &signals, NULL) < 0)
		err(1, "sigprocmask");
	link->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	link->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (link->signal_fd < 0 || link->epoll_fd < 0)
		err(1, "signalfd or epoll_create1");
	watch(link, EPOLL_CTL_ADD, link->signal_fd, EPOLLIN);
	watch(link, EPOLL_CTL_ADD, STDIN_FD, EPOLLIN);
	watch(link, EPOLL_CTL_ADD, DOORBELL_FD, EPOLLIN);
	watch(link, EPOLL_CTL_ADD, TAP_FD, EPOLLIN);
}

static void *map_section(uint32_t id, uint32_t section_size, int protection)
{
	void *address = mmap(NULL, section_size, protection, MAP_SHARED, MEMORY_FD, (off_t)id * section_size);

	if (address == MAP_FAILED)
		err(1, "mmap of %u bytes", section_size);
	return address;
}

static uint32_t number(const char *text)
{
	char *end;
	const unsigned long value = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value > UINT32_MAX)
		errx(2, "%s: a number of 32 bits is expected", text);
	return (uint32_t)value;
}

int main(int argc, char **argv)
{
	struct ring_layout layout;
	struct link link = { .tap_ready = true };

	if (argc != 6)
		errx(2, "usage: tap-link ID SECTION_SIZE MTU BUSY_POLL_US HEADER_SIZE");

	const uint32_t id = number(argv[1]), section_size = number(argv[2]), mtu = number(argv[3]);

	if (id > 1)
		errx(2, "ID %u: it is 0 or 1", id);
	if (!ring_layout(section_size, &layout) || mtu > (section_size - layout.data) / 4 || mtu > 65535)
		errx(2, "an MTU of %u bytes: sections of %u bytes are too small for it", mtu, section_size);
	link.header_size = number(argv[5]);
	if (link.header_size != 0 && link.header_size != HEADER_SIZE)
		errx(2, "a header of %u bytes: it has 0 or %u", link.header_size, HEADER_SIZE);
	link.max_frame = link.header_size > 0 ? HEADER_SIZE + MAX_FRAME : mtu + FRAME_OVERHEAD;
	link.busy_poll.limit = number(argv[4]) * 1e3;
	/* Until waits have shown to be short, they count as long. */
	link.busy_poll.average = 8 * link.busy_poll.limit;

	/* TAP and doorbell are read until they have nothing more. */
	if (fcntl(TAP_FD, F_SETFL, O_RDWR | O_NONBLOCK) < 0 || fcntl(DOORBELL_FD, F_SETFL, O_RDWR | O_NONBLOCK) < 0)
		err(1, "fcntl");
	void *own = map_section(id, section_size, PROT_READ | PROT_WRITE);
	void *peer = map_section(1 - id, section_size, PROT_READ);

	if (!ring_tx_init(&link.tx, own, peer, &layout) || !ring_rx_init(&link.rx, own, peer, &layout))
		err(1, "calloc");
	set_up_events(&link);
	puts("ready");
	fflush(stdout);
	run(&link);
	free(link.tx.slots);
	free(link.rx.carried);
	return 0;
}
