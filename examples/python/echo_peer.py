#!/usr/bin/env python3
"""A peer of protocol 0x0001 that sends each frame back to where it came from. Usage: echo_peer.py SOCKET

Python's standard library only, Linux on x86-64 or arm64, Python 3.10 or later. Written from docs/protocol-0x0001.md
("page" below) and docs/handshake.md; docs/implementing.md explains it step by step. The rings are in rings.py.
"""

import array
import mmap
import os
import select
import signal
import socket
import stat
import struct
import sys
import time

from rings import Layout, Rings, Violation, acquire_release, full_barrier

RESET, INIT, READY, RUN = range(4)
STATE_VECTOR, RING_VECTOR = 0, 1
STATE_TABLE_SIZE = 4096
BURST = 64  # frames that are handled before timers and the server get their turn


# --- The host server: page, section 11 ------------------------------------------------------------------------------
class ServerGone(Exception):
    pass


class Server:
    """Reads the server's messages. Never reads beyond the end of one, so that a descriptor belongs to its message."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(path)

    def message(self):
        """The next message: type, fields as bytes, descriptor or None. Waits until it is complete."""
        fds = []
        header = self._bytes(8, fds)
        kind, length = struct.unpack("<II", header)
        if kind > 2 or not (40, 16, 12)[kind] <= length <= 4096:
            raise ServerGone(f"the server sent a message of type {kind} and {length} bytes")
        fields = self._bytes(length - 8, fds)
        if len(fds) != (1, 1, 0)[kind]:
            raise ServerGone(f"the server sent {len(fds)} descriptors with a message of type {kind}")
        return kind, fields, fds[0] if fds else None

    def _bytes(self, count, fds):
        data = b""
        while len(data) < count:
            part, ancillary, flags, _ = self.socket.recvmsg(count - len(data), socket.CMSG_SPACE(8 * 4))
            for level, kind, content in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    fds.extend(array.array("i", content[: len(content) // 4 * 4]))
            if not part or flags & socket.MSG_CTRUNC:
                raise ServerGone("the server has closed the connection")
            data += part
        return data


# --- The peer: page, sections 3 and 8, and the handshake ------------------------------------------------------------
class EchoPeer:
    def __init__(self, path):
        self.server = Server(path)
        kind, fields, memory = self.server.message()
        if kind != 0:
            raise ServerGone("the server did not begin with INIT")
        _, compatible, self.id, peers, self.vectors, protocol, size = struct.unpack("<6IQ", fields[:32])
        if compatible != 2 or protocol != 1 or self.id > 1 or size == 0 or not 2 <= peers <= 1024:
            raise ServerGone(f"not an Ethernet link: version {compatible}, protocol {protocol}, ID {self.id}")
        if not 1 <= self.vectors <= 1024:
            raise ServerGone(f"the server offers {self.vectors} vectors")
        self.other = 1 - self.id
        status = os.fstat(memory)
        outputs = status.st_size - peers * size
        if not stat.S_ISREG(status.st_mode) or outputs < STATE_TABLE_SIZE:
            raise ServerGone("the shared memory is smaller than announced")

        def view(offset, length, prot):
            return memoryview(mmap.mmap(memory, length, prot=prot, offset=offset))

        both = mmap.PROT_READ | mmap.PROT_WRITE
        self.states = view(0, STATE_TABLE_SIZE, both).cast("I")
        own = view(outputs + self.id * size, size, both)
        peer = view(outputs + self.other * size, size, mmap.PROT_READ)
        dirty = data_end(memory, outputs + self.id * size, size)
        os.close(memory)
        layout = Layout(size)
        self.rings = Rings(own, peer, layout, max(dirty, layout.vrsize))

        self.state = RESET
        self.seen_run = self.insisting = self.is_awake = False
        self.pending = None  # a frame that waits for room
        self.polls, self.patience = 0, 3
        self.eventfds = {}  # by peer, those of its vectors
        self.reminders = []  # delays, in seconds
        self.violations, self.reported = 0, -1.0
        while len(self.eventfds.get(self.id, ())) < self.vectors:
            self.take_message()
        self.publish(RESET)
        self.ring(STATE_VECTOR)

    def take_message(self):
        kind, fields, fd = self.server.message()
        peer = struct.unpack_from("<I", fields)[0]
        if kind == 2:
            for old in self.eventfds.pop(peer, ()):
                os.close(old)
            return
        vectors = self.eventfds.setdefault(peer, [])
        if kind == 0 or peer > 1 or struct.unpack_from("<I", fields, 4)[0] != len(vectors) or len(vectors) == self.vectors:
            os.close(fd)
            raise ServerGone("the server sent a message out of order")
        vectors.append(fd)
        if peer == self.other and len(vectors) == self.vectors:
            self.ring(STATE_VECTOR)  # rule 2: it may have missed our states so far

    def ring(self, vector):
        """A doorbell is an eventfd. A hostile peer could make this write block: page, section 10."""
        vectors = self.eventfds.get(self.other, ())
        if len(vectors) == self.vectors:
            os.eventfd_write(vectors[min(vector, self.vectors - 1)], 1)

    def publish(self, state):
        self.state = state
        changed = self.states[self.id] != state
        acquire_release()
        self.states[self.id] = state
        if changed:
            self.ring(STATE_VECTOR)

    def evaluate(self, violated=False):
        """The table of docs/handshake.md, until nothing changes."""
        for _ in range(16):
            peer = self.states[self.other]
            acquire_release()
            peer = peer if peer <= RUN else RESET
            before = self.state, self.insisting
            if self.state == RESET:
                if self.insisting and peer >= READY:
                    self.insisting = False  # it has seen our RESET: continue from there
                elif not self.insisting and peer <= INIT or self.insisting and peer == INIT:
                    self.insisting = False
                    self.publish(INIT)
            elif self.state == INIT:
                if peer == RUN:
                    self.publish(RESET)
                elif peer >= INIT:
                    self.rings.initialise()
                    self.publish(READY)
            elif violated or peer == RESET or self.state == RUN and (peer == INIT or peer == READY and self.seen_run):
                self.set_carrier(False)
                self.pending = None
                self.publish(RESET)
            elif self.state == READY and peer >= READY:
                self.is_awake = True
                self.publish(RUN)
            elif self.state == RUN and peer == RUN:
                self.set_carrier(True)
            violated = False
            if (self.state, self.insisting) == before:
                return
            self.polls = 0

    def set_carrier(self, on):
        if on != self.seen_run:
            print("the peer is there" if on else "no peer", flush=True)
        self.seen_run = on

    def poll(self):
        """Rules 3 and 6: ring the other side, look at its state, and insist if it does not answer."""
        self.ring(STATE_VECTOR)
        if self.insisting and self.states[self.other] < READY:
            self.insisting = False
            self.publish(INIT)
        elif self.state == INIT and self.states[self.other] == RESET:
            self.polls += 1
            if self.polls >= self.patience:
                self.polls, self.patience = 0, min(2 * self.patience, 100)
                self.insisting = True
                self.publish(RESET)
                return
        self.evaluate()

    def echo(self):
        """Moves up to BURST frames. Whether it may sleep until an interrupt."""
        rings = self.rings
        rings.reclaim()
        moved = 0
        while moved < BURST:
            if self.pending is None:
                self.pending = rings.receive()
            if self.pending is None:
                break
            frame = self.pending
            if 14 <= len(frame) <= rings.layout.longest:  # others are dropped, and completed all the same
                if not rings.send(frame[6:12] + frame[:6] + frame[12:]):
                    break
            self.pending = None
            moved += 1
        completed = rings.shown_used != rings.last_avail
        if rings.flush():
            self.ring(RING_VECTOR)
        if completed:
            self.reminders = [0.002, 0.020, 0.200]
        return moved == 0 and rings.may_sleep(for_room=self.pending is not None)

    def wait(self, seconds):
        """Waits for a message of the server, or an interrupt, and handles it. Whether anything happened."""
        poller = select.poll()
        poller.register(self.server.socket, select.POLLIN)
        for fd in self.eventfds[self.id]:
            poller.register(fd, select.POLLIN)
        ready = poller.poll(seconds * 1000)
        for fd, _ in ready:
            if fd == self.server.socket.fileno():
                self.take_message()
            else:
                try:
                    os.preadv(fd, [bytearray(8)], -1, os.RWF_NOWAIT)  # empties the counter, and never blocks
                except BlockingIOError:
                    pass
        if ready:
            self.patience = 3
            self.is_awake = self.state == RUN
            self.evaluate()
        return bool(ready)

    def run(self):
        next_poll = time.monotonic()
        while True:
            now = time.monotonic()
            if now >= next_poll:
                next_poll = now + (1 if self.seen_run else 0.1)
                self.poll()
            try:
                if self.state == RUN and self.is_awake:
                    self.is_awake = not self.echo()
                limit = next_poll - time.monotonic()
                if self.state != RUN or not self.rings.is_awaited():
                    self.reminders = []
                if self.is_awake:
                    limit = 0
                elif self.reminders:
                    limit = min(limit, self.reminders[0])
                slept = not self.wait(max(limit, 0))
                if slept and not self.is_awake and self.reminders and limit == self.reminders[0]:
                    self.reminders.pop(0)
                    self.ring(RING_VECTOR)
            except Violation as violation:
                # If the other side is gone, the server has cleared its rings: that is no violation.
                gone = self.states[self.other] < READY
                if not gone:
                    self.report(violation)
                self.evaluate(violated=not gone)

    def report(self, violation):
        self.violations += 1
        if time.monotonic() - self.reported >= 1:  # the other side decides how often it happens
            self.reported = time.monotonic()
            print(f"the peer violates the protocol: {violation} ({self.violations} so far)", file=sys.stderr)

    def leave(self):
        """RESET, so that the other side stops reading our section; unless our ID may be another's by now."""
        if self.states[self.id] == self.state:
            self.publish(RESET)


def data_end(file, begin, size):
    """How much of a section may not be zero: the file system knows. The rest need not be cleared."""
    end = at = begin
    while at < begin + size:
        try:
            data = os.lseek(file, at, os.SEEK_DATA)
        except OSError:
            break  # nothing but holes
        if data >= begin + size:
            break
        end = at = os.lseek(file, data, os.SEEK_HOLE)
    return min(end - begin, size)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    if len(sys.argv) != 2:
        sys.exit("usage: echo_peer.py SOCKET")
    try:
        full_barrier()
        peer = EchoPeer(sys.argv[1])
        try:
            peer.run()
        finally:
            peer.leave()
    except (OSError, ValueError, ServerGone) as error:
        sys.exit(f"echo_peer.py: {error}")


if __name__ == "__main__":
    main()
