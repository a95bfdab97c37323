// Layout and rings of protocol 0x0001: docs/protocol-0x0001.md ("page" below), sections 4 to 9.
#ifndef RINGS_H
#define RINGS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MAX_QUEUE = 4096, USED_LEN = 1 };

// --- Layout of an output section: section 4 ---

struct layout {
  uint32_t n;
  uint64_t size, avail, used, vrsize;
};

static inline uint64_t align64(uint64_t value) { return (value + 63) & ~(uint64_t)63; }
static inline uint64_t used_offset(uint64_t n) { return align64(16 * n + 2 * (3 + n)); }

/** False if the section is too small. */
static inline bool make_layout(struct layout *l, uint64_t size) {
  uint32_t n = MAX_QUEUE;
  uint64_t vrsize;
  for (;; n /= 2) {
    vrsize = align64(used_offset(n) + 6 + 8 * (uint64_t)n);
    if (vrsize < size / 8) break;
    if (n == 64) {
      n = 32; // vrsize stays that of n = 64
      break;
    }
  }
  if (size < vrsize + 272) return false;
  *l = (struct layout){.n = n, .size = size, .avail = 16 * (uint64_t)n, .used = used_offset(n), .vrsize = vrsize};
  return true;
}

/** Section 7. */
static inline bool must_ring(uint16_t from, uint16_t to, uint16_t event) {
  return (uint16_t)(to - event - 1) < (uint16_t)(to - from);
}

// --- Both queues: sections 5 and 6 ---

struct rings {
  struct layout l;
  uint8_t *own;        // this side's section
  const uint8_t *peer; // the other side's: it can change at any time
  uint64_t dirty;      // bytes of `own`, from its beginning, that may not be zero
  // As a sender: what was offered, and up to where it is visible and completed. `place` is our copy of the offsets.
  uint16_t next_avail, shown_avail, last_used;
  uint64_t head, place[MAX_QUEUE];
  // As a receiver: up to where frames were taken and completed, and which descriptors are held.
  uint16_t last_avail, shown_used;
  bool is_held[MAX_QUEUE];
  uint16_t held[MAX_QUEUE];
  const char *violation; // null as long as the other side keeps to the protocol
};

static inline uint16_t load16(const uint8_t *section, uint64_t offset, memory_order order) {
  return atomic_load_explicit((const _Atomic uint16_t *)(section + offset), order);
}
static inline uint32_t load32(const uint8_t *section, uint64_t offset) {
  return atomic_load_explicit((const _Atomic uint32_t *)(section + offset), memory_order_relaxed);
}
static inline void store16(uint8_t *section, uint64_t offset, uint16_t value, memory_order order) {
  atomic_store_explicit((_Atomic uint16_t *)(section + offset), value, order);
}
static inline void store32(uint8_t *section, uint64_t offset, uint32_t value) {
  atomic_store_explicit((_Atomic uint32_t *)(section + offset), value, memory_order_relaxed);
}
static inline uint64_t used_event(const struct rings *r) { return r->l.avail + 4 + 2 * r->l.n; }
static inline uint64_t avail_event(const struct rings *r) { return r->l.used + 4 + 8 * r->l.n; }

/** In INIT, before READY: clears the rings, and what frames were written to. */
static inline void initialise(struct rings *r) {
  memset(r->own, 0, r->dirty);
  r->dirty = r->head = r->l.vrsize;
  r->next_avail = r->shown_avail = r->last_used = r->last_avail = r->shown_used = 0;
  memset(r->is_held, 0, sizeof r->is_held);
  r->violation = NULL;
}

static inline bool violated(struct rings *r, const char *name) {
  r->violation = name;
  return false;
}

/** Takes the completions of our frames. Whether there were any. */
static inline bool reclaim(struct rings *r) {
  uint16_t used = load16(r->peer, r->l.used + 2, memory_order_acquire);
  uint16_t count = used - r->last_used;
  if (count > (uint16_t)(r->shown_avail - r->last_used)) return violated(r, "USED_INDEX");
  for (; r->last_used != used; r->last_used++) {
    uint32_t position = r->last_used % r->l.n; // also the descriptor's number
    uint64_t entry = r->l.used + 4 + 8 * position;
    if (load32(r->peer, entry) != position) return violated(r, "USED_ID");
    if (load32(r->peer, entry + 4) != USED_LEN) return violated(r, "USED_LENGTH");
  }
  return count > 0;
}

/** Where a frame fits behind the newest one in flight, 0 if nowhere. Frames lie in a circle in the data area. */
static inline uint64_t place_for(const struct rings *r, uint32_t length) {
  uint16_t in_flight = r->next_avail - r->last_used;
  if (in_flight == 0) return r->l.vrsize;
  if (in_flight == r->l.n) return 0;
  uint64_t tail = r->place[r->last_used % r->l.n];
  if (r->head > tail && r->head + length <= r->l.size) return r->head;
  uint64_t start = r->head > tail ? r->l.vrsize : r->head;
  return start + length <= tail ? start : 0;
}

/** Offers a frame; `flush` shows it to the other side. False if there is no room. */
static inline bool send_frame(struct rings *r, const uint8_t *frame, uint32_t length) {
  uint64_t place = place_for(r, length);
  if (place == 0) return false;
  memcpy(r->own + place, frame, length);
  r->head = align64(place + length);
  if (r->dirty < r->head) r->dirty = r->head;
  uint32_t number = r->next_avail % r->l.n; // completions come in order, so this descriptor is free
  r->place[number] = place;
  store32(r->own, 16 * number, (uint32_t)place);
  store32(r->own, 16 * number + 4, (uint32_t)(place >> 32));
  store32(r->own, 16 * number + 8, length);
  store32(r->own, 16 * number + 12, 0);
  store16(r->own, r->l.avail + 4 + 2 * number, (uint16_t)number, memory_order_relaxed);
  r->next_avail++;
  return true;
}

/**
 * Copies the next frame to `frame`, of `size` bytes. False if there is none. `*length` is 0 if it is longer than that.
 * The other side can change everything at any time: read once, check, use.
 */
static inline bool receive_frame(struct rings *r, uint8_t *frame, uint64_t size, uint32_t *length) {
  uint16_t waiting = load16(r->peer, r->l.avail + 2, memory_order_acquire) - r->last_avail;
  uint16_t held = r->last_avail - r->shown_used;
  if (waiting == 0) return false;
  if (waiting + held > (int)r->l.n) return violated(r, "AVAIL_INDEX");
  uint32_t position = r->last_avail % r->l.n;
  uint16_t number = load16(r->peer, r->l.avail + 4 + 2 * position, memory_order_relaxed);
  if (number >= r->l.n) return violated(r, "DESCRIPTOR_INDEX");
  uint64_t address = load32(r->peer, 16 * number) | (uint64_t)load32(r->peer, 16 * number + 4) << 32;
  uint32_t bytes = load32(r->peer, 16 * number + 8);
  if ((load32(r->peer, 16 * number + 12) & 0xffff) != 0) return violated(r, "DESCRIPTOR_FLAGS");
  if (address < r->l.vrsize || address > r->l.size || bytes > r->l.size - address) return violated(r, "DESCRIPTOR_RANGE");
  if (r->is_held[number]) return violated(r, "DESCRIPTOR_REPEATED");
  r->is_held[number] = true;
  r->held[held] = number;
  *length = bytes <= size ? bytes : 0;
  memcpy(frame, r->peer + address, *length);
  store32(r->own, r->l.used + 4 + 8 * position, number);
  store32(r->own, r->l.used + 8 + 8 * position, USED_LEN);
  r->last_avail++;
  return true;
}

/** Shows offered frames and completions to the other side. Whether it has asked to be interrupted. */
static inline bool flush(struct rings *r) {
  uint16_t old_avail = r->shown_avail, old_used = r->shown_used, held = r->last_avail - r->shown_used;
  for (uint16_t i = 0; i < held; i++) r->is_held[r->held[i]] = false;
  r->shown_used = r->last_avail;
  r->shown_avail = r->next_avail;
  store16(r->own, r->l.used + 2, r->shown_used, memory_order_release);
  store16(r->own, r->l.avail + 2, r->shown_avail, memory_order_release);
  atomic_thread_fence(memory_order_seq_cst);
  return must_ring(old_used, r->shown_used, load16(r->peer, used_event(r), memory_order_relaxed)) ||
         must_ring(old_avail, r->shown_avail, load16(r->peer, avail_event(r), memory_order_relaxed));
}

/** Asks for an interrupt, at room or at the next frame, and looks once more: false if there is news already. */
static inline bool may_sleep(struct rings *r, bool for_room) {
  if (for_room) store16(r->own, used_event(r), r->last_used, memory_order_relaxed);
  else store16(r->own, avail_event(r), r->last_avail, memory_order_relaxed);
  atomic_thread_fence(memory_order_seq_cst);
  if (for_room) return !reclaim(r);
  return load16(r->peer, r->l.avail + 2, memory_order_relaxed) == r->last_avail;
}

/** Whether the other side may have missed the interrupt for one of its last completions: end of section 6. */
static inline bool is_awaited(const struct rings *r) {
  return (uint16_t)(r->shown_used - load16(r->peer, used_event(r), memory_order_relaxed) - 1) < r->l.n;
}

#endif
