/*
 * The ring benchmark's processes, the same work as bench/src/ring-peer.ts: the producer copies a frame into each slot,
 * the consumer checks each descriptor and reads the number in the frame's first word. Both spin; doorbells are not
 * part of it, but the decision about them is.
 *
 *     ring-bench producer|consumer|both SECTION_SIZE FRAME_SIZE FRAMES WARM_UP BURST
 *
 * Descriptor 3 is the memory: 64 KiB for the start, the section of the producer, the section of the consumer. Of
 * FRAMES, the first WARM_UP are not measured. Each BURST of frames has one store of the index, one full barrier and one
 * look at the event index: a burst of 1 is what the drivers of Linux and Zephyr do.
 *
 * The consumer prints the seconds that the rest took. One process that does both by turns prints the seconds of
 * processor time: a figure that does not depend on what else the machine is doing.
 */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "ring.h"

#define MEMORY_FD 3
/* A multiple of every page size. */
#define START_SIZE 0x10000

struct job {
	uint32_t section_size, frame_size, frames, warm_up, burst;
};

static pid_t parent;

static double seconds(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Idle: the other side may have died, and so may the benchmark, which would end this process. */
static void look_again(uint32_t *idle)
{
	if ((++*idle & 0xfffff) == 0 && getppid() != parent)
		errx(1, "the benchmark is gone");
}

static void *map(off_t offset, size_t size, int protection)
{
	void *address = mmap(NULL, size, protection, MAP_SHARED, MEMORY_FD, offset);

	if (address == MAP_FAILED)
		err(1, "mmap of %zu bytes", size);
	return address;
}

struct producer {
	struct ring_tx tx;
	uint8_t *frame;
	uint32_t sent;
	/* Frames in flight with which it goes on sending. */
	uint16_t enough;
};

struct consumer {
	struct ring_rx rx;
	clockid_t clock;
	double start;
	uint32_t received;
};

/*
 * Sends a burst, as far as there is room; once there was none, only when half of what was in flight is done, which is
 * what a link waits for. Returns whether frames came back.
 */
static bool produce(struct producer *producer, const struct job *job)
{
	struct ring_tx *tx = &producer->tx;
	bool reclaimed;

	if (ring_tx_in_flight(tx) <= producer->enough)
		producer->enough = UINT16_MAX;
	for (uint32_t i = 0; i < job->burst && producer->sent < job->frames &&
			     ring_tx_in_flight(tx) <= producer->enough; i++) {
		const uint32_t slot = ring_tx_reserve(tx, job->frame_size);

		if (slot == 0) {
			producer->enough = ring_tx_in_flight(tx) / 2;
			break;
		}
		memcpy(tx->own.base + slot, producer->frame, job->frame_size);
		memcpy(tx->own.base + slot, &producer->sent, sizeof(producer->sent));
		ring_tx_commit(tx, job->frame_size);
		producer->sent++;
	}
	ring_tx_flush(tx);
	reclaimed = ring_tx_reclaim(tx) > 0;
	if (tx->violation != RING_OK)
		errx(1, "producer: violation %d", tx->violation);
	return reclaimed;
}

/* Takes up to a burst. Returns whether there was any frame. */
static bool consume(struct consumer *consumer, const struct job *job)
{
	struct ring_rx *rx = &consumer->rx;
	uint32_t burst = ring_rx_available(rx);
	const bool any = burst > 0;

	if (burst > job->burst)
		burst = job->burst;
	if (consumer->received <= job->warm_up && consumer->received + burst > job->warm_up)
		consumer->start = seconds(consumer->clock);
	for (; burst > 0 && ring_rx_next(rx); burst--) {
		uint32_t number;

		memcpy(&number, rx->peer.base + rx->offset, sizeof(number));
		if (number != consumer->received)
			errx(1, "consumer: frame %u is not the one that came", consumer->received);
		consumer->received++;
	}
	ring_rx_flush(rx);
	if (rx->violation != RING_OK)
		errx(1, "consumer: violation %d", rx->violation);
	return any;
}

static uint32_t number(const char *text)
{
	char *end;
	const unsigned long value = strtoul(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value > UINT32_MAX)
		errx(2, "%s: a number of 32 bits is expected", text);
	return (uint32_t)value;
}

/* Maps both sections with the rights of peer `id`. */
static void map_sections(uint32_t id, uint32_t size, void **own, void **peer)
{
	*own = map(START_SIZE + (off_t)id * size, size, PROT_READ | PROT_WRITE);
	*peer = map(START_SIZE + (off_t)(1 - id) * size, size, PROT_READ);
}

int main(int argc, char **argv)
{
	struct ring_layout layout;
	struct producer producer = { .enough = UINT16_MAX };
	struct consumer consumer = { .clock = CLOCK_MONOTONIC };
	void *own, *peer;
	uint32_t idle = 0;

	parent = getppid();
	if (argc != 7)
		errx(2, "usage: ring-bench producer|consumer|both SECTION_SIZE FRAME_SIZE FRAMES WARM_UP BURST");

	const bool produces = strcmp(argv[1], "consumer") != 0, consumes = strcmp(argv[1], "producer") != 0;
	const struct job job = {
		number(argv[2]), number(argv[3]), number(argv[4]), number(argv[5]), number(argv[6]),
	};

	if (job.frame_size < sizeof(uint32_t) || job.burst == 0)
		errx(2, "frames have 4 bytes or more, and a burst one frame or more");
	if (!ring_layout(job.section_size, &layout) || job.frame_size > (job.section_size - layout.data) / 4)
		errx(2, "sections of %u bytes are too small", job.section_size);

	_Atomic uint32_t *ready = map(0, START_SIZE, PROT_READ | PROT_WRITE);

	if (produces) {
		map_sections(0, job.section_size, &own, &peer);
		producer.frame = malloc(job.frame_size);
		if (producer.frame == NULL || !ring_tx_init(&producer.tx, own, peer, &layout))
			err(1, "malloc");
		memset(producer.frame, 0x5a, job.frame_size);
		atomic_store(&ready[0], 1);
	}
	if (consumes) {
		map_sections(1, job.section_size, &own, &peer);
		memset(own, 0, job.section_size);
		if (!ring_rx_init(&consumer.rx, own, peer, &layout))
			err(1, "malloc");
		atomic_store(&ready[1], 1);
	}
	/* Stands in for the handshake: neither looks at the other's section before it was initialised. */
	while (atomic_load(&ready[0]) == 0 || atomic_load(&ready[1]) == 0)
		look_again(&idle);

	if (produces && consumes) {
		consumer.clock = CLOCK_PROCESS_CPUTIME_ID;
		while (consumer.received < job.frames) {
			produce(&producer, &job);
			consume(&consumer, &job);
		}
	} else if (produces) {
		while (producer.sent < job.frames) {
			if (!produce(&producer, &job))
				look_again(&idle);
		}
	} else {
		while (consumer.received < job.frames) {
			if (!consume(&consumer, &job))
				look_again(&idle);
		}
	}
	if (consumes)
		printf("%.9f\n", seconds(consumer.clock) - consumer.start);
	free(producer.frame);
	free(producer.tx.slots);
	free(consumer.rx.carried);
	return 0;
}
