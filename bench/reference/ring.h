/*
 * Protocol 0x0001 in C: what the TypeScript of packages/transport is measured against. The same layout, the same
 * checks of what the peer says, and the same liberties that the protocol leaves (constant avail ring, used entries
 * stored only where they differ, the front of the data area preferred), so that what differs is the language.
 * Sections are those of docs/protocol-0x0001.md.
 */
#ifndef RING_H
#define RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the rings are little-endian");

/* Fields that the other side reads or writes: atomic, so that the compiler reads them once and at its place. */
struct ring_descriptor {
	_Atomic uint64_t addr;
	_Atomic uint32_t len;
	_Atomic uint16_t flags, next;
};

struct ring_used_entry {
	_Atomic uint32_t id, len;
};

_Static_assert(sizeof(struct ring_descriptor) == 16, "section 4");
_Static_assert(sizeof(struct ring_used_entry) == 8, "section 4");

/* Section 9. A queue that has met one takes nothing more from its peer. */
enum ring_violation {
	RING_OK,
	RING_AVAIL_INDEX,
	RING_DESCRIPTOR_INDEX,
	RING_DESCRIPTOR_FLAGS,
	RING_DESCRIPTOR_RANGE,
	RING_DESCRIPTOR_REPEATED,
	RING_USED_INDEX,
	RING_USED_ID,
	RING_USED_LENGTH,
};

/* Offsets and sizes in bytes, from the beginning of an output section. */
struct ring_layout {
	uint32_t section_size, n, avail, used, data;
};

static inline uint32_t ring_align(uint32_t bytes)
{
	return (bytes + 63) & ~63u;
}

/* Section 4. False if the section is too small. */
static inline bool ring_layout(uint32_t section_size, struct ring_layout *layout)
{
	uint32_t n, data;

	for (n = 4096; ; n /= 2) {
		data = ring_align(ring_align(16 * n + 2 * (3 + n)) + 6 + 8 * n);
		if (data < section_size / 8 || n == 64)
			break;
	}
	/* Without a queue that fits, n is 32, and the data area stays where that of 64 begins. */
	if (data >= section_size / 8)
		n = 32;
	*layout = (struct ring_layout){
		.section_size = section_size,
		.n = n,
		.avail = 16 * n,
		.used = ring_align(16 * n + 2 * (3 + n)),
		.data = data,
	};
	return section_size >= data && section_size - data >= 4 * 68;
}

/* The fields of a section, see section 4. What is written of the own one is only read of the peer's. */
struct ring_section {
	uint8_t *base;
	struct ring_descriptor *descriptors;
	_Atomic uint16_t *avail_idx, *avail_ring, *used_event, *used_idx, *avail_event;
	struct ring_used_entry *used_ring;
};

static inline struct ring_section ring_section(void *base, const struct ring_layout *layout)
{
	uint8_t *const avail = (uint8_t *)base + layout->avail;
	uint8_t *const used = (uint8_t *)base + layout->used;

	return (struct ring_section){
		.base = base,
		.descriptors = base,
		.avail_idx = (_Atomic uint16_t *)(avail + 2),
		.avail_ring = (_Atomic uint16_t *)(avail + 4),
		.used_event = (_Atomic uint16_t *)(avail + 4 + 2 * layout->n),
		.used_idx = (_Atomic uint16_t *)(used + 2),
		.used_ring = (struct ring_used_entry *)(used + 4),
		.avail_event = (_Atomic uint16_t *)(used + 4 + 8 * layout->n),
	};
}

#define RING_LOAD(field) atomic_load_explicit(&(field), memory_order_relaxed)
#define RING_STORE(field, value) atomic_store_explicit(&(field), (value), memory_order_relaxed)

/* Section 7. */
static inline bool ring_is_asked_for(uint16_t next, uint16_t old, uint16_t event)
{
	return (uint16_t)(next - event - 1) < (uint16_t)(next - old);
}

/* Sending, section 5. */
struct ring_tx {
	enum ring_violation violation;
	struct ring_layout layout;
	struct ring_section own, peer;
	/* By descriptor: the offset of its frame. */
	uint32_t *slots;
	/* avail.idx after the next flush, and as published; used.idx up to which completions were taken. */
	uint16_t next, published, last_used;
	/* Offsets in the section: behind the newest frame, of the oldest one in flight, and of the reserved slot. */
	uint32_t head, tail, slot;
};

/* With so many bytes free at the front of the data area, the next frame goes there, where the caches are warm. */
#define RING_WARM_BYTES 0x40000

/* Clears its own section and starts from index 0. False if memory is short. */
static inline bool ring_tx_init(struct ring_tx *tx, void *own, void *peer, const struct ring_layout *layout)
{
	memset(own, 0, layout->section_size);
	*tx = (struct ring_tx){
		.layout = *layout,
		.own = ring_section(own, layout),
		.peer = ring_section(peer, layout),
		.slots = calloc(layout->n, sizeof(*tx->slots)),
		.head = layout->data,
		.tail = layout->data,
	};
	/* Completions come in order, so descriptor i is always the one whose turn it is at position i. */
	for (uint32_t i = 0; i < layout->n; i++)
		RING_STORE(tx->own.avail_ring[i], (uint16_t)i);
	return tx->slots != NULL;
}

/* Frames that were committed and not completed yet. */
static inline uint16_t ring_tx_in_flight(const struct ring_tx *tx)
{
	return (uint16_t)(tx->next - tx->last_used);
}

/* Reserves a slot for a frame of up to `length` bytes. Returns its offset in the section; 0 without room. */
static inline uint32_t ring_tx_reserve(struct ring_tx *tx, uint32_t length)
{
	const uint16_t in_flight = ring_tx_in_flight(tx);
	const uint32_t free = tx->tail - tx->layout.data;

	if (tx->violation != RING_OK || in_flight >= tx->layout.n)
		return 0;
	tx->slot = tx->head;
	if (tx->head > tx->tail || in_flight == 0) {
		if (free >= RING_WARM_BYTES || length > tx->layout.section_size - tx->head) {
			if (length > free)
				return 0;
			tx->slot = tx->layout.data;
		}
	} else if (length > tx->tail - tx->head) {
		return 0;
	}
	return tx->slot;
}

/* Puts the frame in the reserved slot into the queue; ring_tx_flush() shows it to the peer. */
static inline void ring_tx_commit(struct ring_tx *tx, uint32_t length)
{
	const uint32_t descriptor = tx->next & (tx->layout.n - 1);

	RING_STORE(tx->own.descriptors[descriptor].addr, tx->slot);
	RING_STORE(tx->own.descriptors[descriptor].len, length);
	tx->slots[descriptor] = tx->slot;
	tx->head = tx->slot + ring_align(length);
	tx->next++;
}

/* Publishes all committed frames. True if the doorbell must be rung. */
static inline bool ring_tx_flush(struct ring_tx *tx)
{
	const uint16_t next = tx->next, old = tx->published;

	if (next == old)
		return false;
	tx->published = next;
	/* Sequentially consistent: the load of the event index cannot pass the store. */
	atomic_store(tx->own.avail_idx, next);
	return ring_is_asked_for(next, old, atomic_load(tx->peer.avail_event));
}

/* Handles the completions. Returns the number of completed frames. */
static inline uint16_t ring_tx_reclaim(struct ring_tx *tx)
{
	const uint32_t mask = tx->layout.n - 1;
	const uint16_t used = atomic_load_explicit(tx->peer.used_idx, memory_order_acquire);
	const uint16_t count = (uint16_t)(used - tx->last_used);

	if (count == 0 || tx->violation != RING_OK)
		return 0;
	if (count > (uint16_t)(tx->published - tx->last_used)) {
		tx->violation = RING_USED_INDEX;
		return 0;
	}
	for (uint16_t i = 0; i < count; i++) {
		const uint32_t position = (tx->last_used + i) & mask;

		if (RING_LOAD(tx->peer.used_ring[position].id) != position) {
			tx->violation = RING_USED_ID;
			return 0;
		}
		if (RING_LOAD(tx->peer.used_ring[position].len) != 1) {
			tx->violation = RING_USED_LENGTH;
			return 0;
		}
	}
	tx->last_used = used;
	if (used == tx->next)
		tx->head = tx->tail = tx->layout.data;
	else
		tx->tail = tx->slots[used & mask];
	return count;
}

/* Asks for an interrupt when half of what is in flight is done, then looks once more. True: the caller may sleep. */
static inline bool ring_tx_wait_for_room(struct ring_tx *tx, uint32_t length)
{
	uint16_t reclaimed;

	do {
		const uint16_t shown = (uint16_t)(tx->published - tx->last_used);

		atomic_store(tx->own.used_event, (uint16_t)(tx->last_used + shown / 2));
		reclaimed = ring_tx_reclaim(tx);
	} while (reclaimed > 0 && ring_tx_reserve(tx, length) == 0);
	return tx->violation == RING_OK && ring_tx_reserve(tx, length) == 0;
}

/* Receiving, section 6. */
struct ring_rx {
	/* The frame that ring_rx_next() took: its offset in the peer's section, and its length in bytes. */
	uint32_t offset, length;
	enum ring_violation violation;
	struct ring_layout layout;
	struct ring_section own, peer;
	/* By descriptor: the number of the frame that it carried last, to notice one that is offered twice. */
	uint64_t *carried;
	/* avail.idx up to which frames were taken, and used.idx as published. */
	uint16_t last, published;
	/* Frames taken since the last flush, and the number of the first of them (from 1). */
	uint16_t held;
	uint64_t first_held;
};

/* Starts from index 0, after ring_tx_init() has cleared its own section. False if memory is short. */
static inline bool ring_rx_init(struct ring_rx *rx, void *own, void *peer, const struct ring_layout *layout)
{
	*rx = (struct ring_rx){
		.layout = *layout,
		.own = ring_section(own, layout),
		.peer = ring_section(peer, layout),
		.carried = calloc(layout->n, sizeof(*rx->carried)),
		.first_held = 1,
	};
	return rx->carried != NULL;
}

/* Number of pending frames. */
static inline uint16_t ring_rx_available(struct ring_rx *rx)
{
	const uint16_t idx = atomic_load_explicit(rx->peer.avail_idx, memory_order_acquire);
	const uint16_t waiting = (uint16_t)(idx - rx->last);

	if (waiting == 0 || rx->violation != RING_OK)
		return 0;
	if ((uint32_t)waiting + rx->held > rx->layout.n) {
		rx->violation = RING_AVAIL_INDEX;
		return 0;
	}
	return waiting;
}

static inline bool ring_rx_fail(struct ring_rx *rx, enum ring_violation violation)
{
	rx->violation = violation;
	return false;
}

/* Receives the next pending frame, which stays valid until ring_rx_flush(). False after a violation. */
static inline bool ring_rx_next(struct ring_rx *rx)
{
	const uint32_t mask = rx->layout.n - 1;
	const uint16_t id = RING_LOAD(rx->peer.avail_ring[rx->last & mask]);
	const struct ring_descriptor *descriptor;
	struct ring_used_entry *entry;
	uint64_t addr;
	uint32_t len;

	if (rx->violation != RING_OK)
		return false;
	if (id > mask)
		return ring_rx_fail(rx, RING_DESCRIPTOR_INDEX);
	descriptor = &rx->peer.descriptors[id];
	addr = RING_LOAD(descriptor->addr);
	len = RING_LOAD(descriptor->len);
	if (RING_LOAD(descriptor->flags) != 0)
		return ring_rx_fail(rx, RING_DESCRIPTOR_FLAGS);
	if (addr < rx->layout.data || addr > rx->layout.section_size || len > rx->layout.section_size - addr)
		return ring_rx_fail(rx, RING_DESCRIPTOR_RANGE);
	if (rx->carried[id] >= rx->first_held)
		return ring_rx_fail(rx, RING_DESCRIPTOR_REPEATED);
	rx->carried[id] = rx->first_held + rx->held;
	entry = &rx->own.used_ring[(rx->published + rx->held) & mask];
	/* Storing only what differs leaves the cache line with the peer, which reads it. */
	if (RING_LOAD(entry->id) != id)
		RING_STORE(entry->id, id);
	if (RING_LOAD(entry->len) != 1)
		RING_STORE(entry->len, 1);
	rx->last++;
	rx->held++;
	rx->offset = (uint32_t)addr;
	rx->length = len;
	return true;
}

/* Returns the received frames to the peer. True if the doorbell must be rung. */
static inline bool ring_rx_flush(struct ring_rx *rx)
{
	const uint16_t old = rx->published, used = (uint16_t)(old + rx->held);

	if (used == old)
		return false;
	rx->published = used;
	rx->first_held += rx->held;
	rx->held = 0;
	/* Sequentially consistent, as in ring_tx_flush(). */
	atomic_store(rx->own.used_idx, used);
	return ring_is_asked_for(used, old, atomic_load(rx->peer.used_event));
}

/* Asks for an interrupt at the next frame, then looks once more. True: the caller may sleep. */
static inline bool ring_rx_wait_for_frames(struct ring_rx *rx)
{
	atomic_store(rx->own.avail_event, rx->last);
	return ring_rx_available(rx) == 0;
}

#endif
