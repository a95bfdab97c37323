"""Memory order, layout and rings of protocol 0x0001: docs/protocol-0x0001.md ("page" below), sections 4 to 9."""

import array
import collections
import ctypes
import platform
import struct

# --- Order of memory accesses ---------------------------------------------------------------------------------------
# Python has no fences. membarrier(2) with MEMBARRIER_CMD_GLOBAL_EXPEDITED executes a full one before it returns.
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_MEMBARRIER = {"x86_64": 324, "aarch64": 283}.get(platform.machine())


def full_barrier():
    if _MEMBARRIER is None or _syscall(_MEMBARRIER, 2, 0, 0) != 0:
        raise OSError("this peer needs membarrier(2), on x86-64 or arm64")


def acquire_release():
    """After the load of an index, and before the store of one. x86-64 never reorders these; arm64 does."""
    if platform.machine() != "x86_64":
        full_barrier()


# --- Layout of an output section, and when to ring: page, sections 4 and 7 ------------------------------------------
def align64(value):
    return (value + 63) & -64


class Layout:
    def __init__(self, size):
        for n in (4096, 2048, 1024, 512, 256, 128, 64):
            vrsize = align64(self._used(n) + 6 + 8 * n)
            if vrsize < size // 8:
                break
        else:
            n = 32  # vrsize stays that of n = 64
        if size - vrsize < 272:
            raise ValueError(f"output sections of {size} bytes are too small")
        self.size, self.n, self.vrsize = size, n, vrsize
        self.avail, self.used = 16 * n, self._used(n)
        self.used_event, self.avail_event = self.avail + 4 + 2 * n, self.used + 4 + 8 * n
        self.longest = min(65535, (size - vrsize) // 4) + 18

    @staticmethod
    def _used(n):
        return align64(16 * n + 2 * (3 + n))


def must_ring(old, new, event):
    return (new - event - 1) & 0xFFFF < (new - old) & 0xFFFF


# --- The rings: page, sections 5 and 6 ------------------------------------------------------------------------------
class Violation(Exception):
    pass


class Rings:
    """Both queues. `own` and `peer` are the two sections. A cast view stores and loads a u16 or u32 in one piece."""

    def __init__(self, own, peer, layout, dirty):
        self.layout, self.dirty = layout, dirty
        self.own, self.own16, self.own32 = own, own.cast("H"), own.cast("I")
        self.peer, self.peer16, self.peer32 = peer, peer.cast("H"), peer.cast("I")

    def initialise(self):
        """In INIT, before READY: clears the rings, and what frames were written to."""
        self.own[: self.dirty] = bytes(self.dirty)
        self.dirty = self.layout.vrsize
        self.next_avail = self.shown_avail = self.last_used = 0  # as a sender
        self.last_avail = self.shown_used = 0  # as a receiver
        self.held = set()  # descriptors that were taken, and not completed yet
        self.in_flight = collections.deque()  # our copy of what was offered: (descriptor, offset), oldest first
        self.head = self.layout.vrsize

    def reclaim(self):
        """Takes the completions of our frames. Whether there were any."""
        lay = self.layout
        used = self.peer16[(lay.used + 2) // 2]
        acquire_release()
        count = (used - self.last_used) & 0xFFFF
        if count > len(self.in_flight):
            raise Violation("USED_INDEX")
        for _ in range(count):
            entry = (lay.used + 4 + 8 * (self.last_used % lay.n)) // 4
            if self.peer32[entry] != self.in_flight[0][0]:
                raise Violation("USED_ID")
            if self.peer32[entry + 1] != 1:
                raise Violation("USED_LENGTH")
            self.in_flight.popleft()
            self.last_used = (self.last_used + 1) & 0xFFFF
        return count > 0

    def _place(self, length):
        """Where a frame fits behind the newest one in flight, or None. Frames lie in a circle in the data area."""
        if not self.in_flight:
            return self.layout.vrsize
        tail = self.in_flight[0][1]
        if self.head > tail and self.head + length <= self.layout.size:
            return self.head
        start = self.layout.vrsize if self.head > tail else self.head
        return start if start + length <= tail else None

    def send(self, frame):
        """Offers a frame; flush() shows it to the other side. False if there is no room."""
        lay = self.layout
        place = self._place(len(frame)) if len(self.in_flight) < lay.n else None
        if place is None:
            return False
        self.own[place : place + len(frame)] = frame
        self.head = align64(place + len(frame))
        self.dirty = max(self.dirty, self.head)
        number = self.next_avail % lay.n  # completions come in order, so this descriptor is free
        self.own32[4 * number : 4 * number + 4] = array.array("I", (place, 0, len(frame), 0))
        self.own16[lay.avail // 2 + 2 + number] = number
        self.in_flight.append((number, place))
        self.next_avail = (self.next_avail + 1) & 0xFFFF
        return True

    def receive(self):
        """The next frame, as a copy, or None. The other side can change everything at any time: read once, check, use."""
        lay = self.layout
        avail = self.peer16[(lay.avail + 2) // 2]
        acquire_release()
        waiting = (avail - self.last_avail) & 0xFFFF
        if waiting == 0:
            return None
        if waiting + len(self.held) > lay.n:
            raise Violation("AVAIL_INDEX")
        number = self.peer16[lay.avail // 2 + 2 + self.last_avail % lay.n]
        if number >= lay.n:
            raise Violation("DESCRIPTOR_INDEX")
        address, length, flags, _next = struct.unpack("<QIHH", self.peer[16 * number : 16 * number + 16].tobytes())
        if flags != 0:
            raise Violation("DESCRIPTOR_FLAGS")
        if not (lay.vrsize <= address <= lay.size and length <= lay.size - address):
            raise Violation("DESCRIPTOR_RANGE")
        if number in self.held:
            raise Violation("DESCRIPTOR_REPEATED")
        self.held.add(number)
        frame = self.peer[address : address + length].tobytes()
        entry = (lay.used + 4 + 8 * (self.last_avail % lay.n)) // 4
        self.own32[entry], self.own32[entry + 1] = number, 1
        self.last_avail = (self.last_avail + 1) & 0xFFFF
        return frame

    def flush(self):
        """Shows offered frames and completions to the other side. Whether it has asked to be interrupted."""
        lay = self.layout
        old_avail, old_used = self.shown_avail, self.shown_used
        if old_avail == self.next_avail and old_used == self.last_avail:
            return False
        self.held.clear()
        acquire_release()
        self.own16[(lay.used + 2) // 2] = self.shown_used = self.last_avail
        self.own16[(lay.avail + 2) // 2] = self.shown_avail = self.next_avail
        full_barrier()
        return must_ring(old_used, self.shown_used, self.peer16[lay.used_event // 2]) or must_ring(
            old_avail, self.shown_avail, self.peer16[lay.avail_event // 2]
        )

    def may_sleep(self, for_room):
        """Asks for an interrupt, at room or at the next frame, and looks once more: False if there is news already."""
        lay = self.layout
        if for_room:
            self.own16[lay.used_event // 2] = self.last_used
            full_barrier()
            return not self.reclaim()
        self.own16[lay.avail_event // 2] = self.last_avail
        full_barrier()
        return self.peer16[(lay.avail + 2) // 2] == self.last_avail

    def is_awaited(self):
        """Whether the other side may have missed the interrupt for one of its last completions: end of section 6."""
        event = self.peer16[self.layout.used_event // 2]
        return (self.shown_used - event - 1) & 0xFFFF < self.layout.n
