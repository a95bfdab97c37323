// A peer of protocol 0x0001 that sends each frame back to where it came from. Usage: echo-peer SOCKET
//
//     cc -std=c11 -O2 -o echo-peer echo-peer.c
//
// Linux and its C library only. Written from docs/protocol-0x0001.md ("page" below) and docs/handshake.md;
// docs/implementing.md explains it step by step. The rings are in rings.h.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "rings.h"

enum { RESET, INIT, READY, RUN };
enum { STATE_VECTOR, RING_VECTOR, MAX_VECTORS = 1024 };
enum { STATE_TABLE_SIZE = 4096, BURST = 64, SHORTEST = 14, LONGEST = 65535 + 18 };

static volatile sig_atomic_t stopped;
static void stop(int number) { (void)number, stopped = 1; }

static int server;                       // the socket
static uint32_t id, other, vectors;      // who we are, and how many vectors each peer has
static int eventfds[2][MAX_VECTORS];     // by peer
static uint32_t known[2];                // how many of them have arrived
static _Atomic uint32_t *states;         // the state table
static uint32_t state;                   // ours
static bool seen_run, insisting, awake;  // awake: the rings may have news
static int polls, patience = 3;          // rule 6 of the handshake
static struct rings rings;
static uint8_t pending[LONGEST];         // a frame that waits for room
static uint32_t pending_length;
static uint64_t longest;

// Sets our state to RESET, so that the other side stops reading our section, unless our ID may be another's by now.
static void leave(void) {
  if (states != NULL && atomic_load(&states[id]) == state) {
    atomic_store(&states[id], RESET);
    if (known[other] == vectors) eventfd_write(eventfds[other][STATE_VECTOR], 1);
  }
}
static void die(const char *text) {
  leave();
  fprintf(stderr, "echo-peer: %s\n", text);
  exit(1);
}
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

// --- The host server: page, section 11 ---

// Reads `size` bytes and no more, so that a descriptor that comes with them belongs to this message.
static void read_bytes(uint8_t *data, size_t size, int *fd) {
  while (size > 0) {
    union { struct cmsghdr header; char bytes[CMSG_SPACE(sizeof(int))]; } control;
    struct iovec part = {data, size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t received = recvmsg(server, &message, MSG_CMSG_CLOEXEC);
    if (received == -1 && errno == EINTR && !stopped) continue;
    if (received <= 0) die("the server has closed the connection");
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_type == SCM_RIGHTS) {
      if (*fd != -1 || (message.msg_flags & MSG_CTRUNC)) die("the server sent too many descriptors");
      memcpy(fd, CMSG_DATA(header), sizeof *fd);
    }
    data += received;
    size -= (size_t)received;
  }
}

// The next message: its type, its descriptor or -1, and in `fields` what is behind the header.
static uint32_t read_message(uint32_t fields[1024], int *fd) {
  static const uint32_t shortest[] = {40, 16, 12};
  uint32_t header[2];
  *fd = -1;
  read_bytes((uint8_t *)header, sizeof header, fd);
  if (header[0] > 2 || header[1] < shortest[header[0]] || header[1] > 4096) die("the server sent an unknown message");
  read_bytes((uint8_t *)fields, header[1] - sizeof header, fd);
  if ((*fd == -1) != (header[0] == 2)) die("the server sent a descriptor too many, or too few");
  return header[0];
}

// A doorbell is an eventfd. A hostile peer could make this write block: page, section 10.
static void ring(uint32_t vector) {
  if (known[other] == vectors) eventfd_write(eventfds[other][vector < vectors ? vector : 0], 1);
}

static void take_message(void) {
  uint32_t fields[1024];
  int fd;
  uint32_t type = read_message(fields, &fd), peer = fields[0];
  if (type == 0 || peer > 1) die("the server sent a message out of order");
  if (type == 2) {
    while (known[peer] > 0) close(eventfds[peer][--known[peer]]);
    return;
  }
  if (known[peer] == vectors || fields[1] != known[peer]) die("the server sent a vector out of order");
  eventfds[peer][known[peer]++] = fd;
  if (peer == other) ring(STATE_VECTOR); // rule 2: it may have missed our states so far
}

static void *map(int memory, uint64_t offset, uint64_t size, int protection) {
  void *at = mmap(NULL, size, protection, MAP_SHARED, memory, (off_t)offset);
  if (at == MAP_FAILED) die("the shared memory cannot be mapped");
  return at;
}

// How much of a section may not be zero: the file system knows. The rest need not be cleared.
static uint64_t data_end(int file, off_t begin, uint64_t size) {
  off_t end = begin, limit = begin + (off_t)size;
  for (off_t data; end < limit && (data = lseek(file, end, SEEK_DATA)) != -1 && data < limit;) end = lseek(file, data, SEEK_HOLE);
  return end < limit ? (uint64_t)(end - begin) : size;
}

static void join(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof address.sun_path) die("the socket's path is too long");
  strcpy(address.sun_path, path);
  server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(server, (struct sockaddr *)&address, sizeof address) == -1) die("no host server answers there");
  uint32_t init[1024];
  int memory;
  if (read_message(init, &memory) != 0) die("the server did not begin with INIT");
  uint32_t compatible = init[1], peers = init[3], protocol = init[5];
  uint64_t size = init[6] | (uint64_t)init[7] << 32;
  id = init[2], vectors = init[4];
  if (compatible != 2 || protocol != 1 || id > 1 || peers < 2 || peers > 1024) die("not an Ethernet link");
  if (vectors < 1 || vectors > MAX_VECTORS) die("the server offers no vectors, or too many");
  struct stat status;
  if (fstat(memory, &status) == -1 || !S_ISREG(status.st_mode)) die("the shared memory is no file");
  uint64_t total = (uint64_t)status.st_size;
  if (total < STATE_TABLE_SIZE || size > (total - STATE_TABLE_SIZE) / peers) die("the shared memory is smaller than announced");
  if (!make_layout(&rings.l, size)) die("the output sections are too small");
  uint64_t outputs = total - peers * size;
  other = 1 - id;
  rings.own = map(memory, outputs + id * size, size, PROT_READ | PROT_WRITE);
  rings.peer = map(memory, outputs + other * size, size, PROT_READ);
  rings.dirty = data_end(memory, (off_t)(outputs + id * size), size);
  if (rings.dirty < rings.l.vrsize) rings.dirty = rings.l.vrsize;
  longest = (size - rings.l.vrsize) / 4 + 18;
  if (longest > LONGEST) longest = LONGEST;
  _Atomic uint32_t *table = map(memory, 0, STATE_TABLE_SIZE, PROT_READ | PROT_WRITE);
  close(memory);
  while (known[id] < vectors) take_message();
  states = table;
}

// --- The handshake: docs/handshake.md ---

static void publish(uint32_t next) {
  state = next;
  if (atomic_exchange(&states[id], next) != next) ring(STATE_VECTOR);
}

static void set_carrier(bool on) {
  if (on != seen_run) printf("%s\n", on ? "the peer is there" : "no peer");
  seen_run = on;
}

// The table, until nothing changes.
static void evaluate(bool fault) {
  for (int i = 0; i < 16; i++, fault = false) {
    uint32_t peer = atomic_load(&states[other]), before = state;
    bool insisted = insisting;
    if (peer > RUN) peer = RESET;
    if (state == RESET) {
      if (insisting && peer >= READY) insisting = false; // it has seen our RESET: continue from there
      else if (insisting ? peer == INIT : peer <= INIT) insisting = false, publish(INIT);
    } else if (state == INIT) {
      if (peer == RUN) publish(RESET);
      else if (peer >= INIT) initialise(&rings), publish(READY);
    } else if (fault || peer == RESET || (state == RUN && (peer == INIT || (peer == READY && seen_run)))) {
      set_carrier(false);
      pending_length = 0;
      publish(RESET);
    } else if (state == READY && peer >= READY) {
      awake = true;
      publish(RUN);
    } else if (state == RUN && peer == RUN) {
      set_carrier(true);
    }
    if (state == before && insisting == insisted) return;
    polls = 0;
  }
}

// Rules 3 and 6: ring the other side, look at its state, and insist if it does not answer.
static void poll_peer(void) {
  ring(STATE_VECTOR);
  if (insisting && atomic_load(&states[other]) < READY) {
    insisting = false;
    publish(INIT);
  } else if (state == INIT && atomic_load(&states[other]) == RESET && ++polls >= patience) {
    polls = 0;
    patience = patience > 50 ? 100 : 2 * patience;
    insisting = true;
    publish(RESET);
    return;
  }
  evaluate(false);
}

// --- The data path ---

// Moves up to BURST frames. Whether it may sleep until an interrupt.
static bool echo(void) {
  int moved = 0;
  reclaim(&rings);
  for (; moved < BURST && rings.violation == NULL; moved++) {
    if (pending_length == 0) {
      if (!receive_frame(&rings, pending, longest, &pending_length)) break;
      if (pending_length < SHORTEST) { // dropped, as are frames that are too long; completed all the same
        pending_length = 0;
        continue;
      }
      uint8_t source[6];
      memcpy(source, pending + 6, 6);
      memcpy(pending + 6, pending, 6);
      memcpy(pending, source, 6);
    }
    if (!send_frame(&rings, pending, pending_length)) break;
    pending_length = 0;
  }
  if ((moved > 0 || rings.shown_used != rings.last_avail) && flush(&rings)) ring(RING_VECTOR);
  return moved == 0 && may_sleep(&rings, pending_length > 0);
}

static void run(void) {
  static const double reminders[] = {0.002, 0.020, 0.200};
  struct pollfd waits[1 + MAX_VECTORS] = {{.fd = server, .events = POLLIN}};
  for (uint32_t i = 0; i < vectors; i++) waits[1 + i] = (struct pollfd){.fd = eventfds[id][i], .events = POLLIN};
  double next_poll = now(), next_reminder = 0, reported = -1;
  uint64_t violations = 0;
  unsigned reminded = 3;
  while (!stopped) {
    if (now() >= next_poll) {
      poll_peer();
      next_poll = now() + (seen_run ? 1 : 0.1);
    }
    if (state == RUN && awake) {
      uint16_t before = rings.last_avail;
      awake = !echo();
      if (rings.last_avail != before) reminded = 0, next_reminder = now() + reminders[0];
      if (rings.violation != NULL) {
        // If the other side is gone, the server has cleared its rings: that is no violation.
        bool fault = atomic_load(&states[other]) >= READY;
        violations += fault;
        if (fault && now() - reported >= 1) { // the other side decides how often it happens
          reported = now();
          fprintf(stderr, "the peer violates the protocol: %s (%ju so far)\n", rings.violation, (uintmax_t)violations);
        }
        evaluate(fault);
        continue;
      }
    }
    bool reminds = state == RUN && reminded < 3 && is_awaited(&rings);
    double until = reminds && next_reminder < next_poll ? next_reminder : next_poll, left = until - now();
    int timeout = (state == RUN && awake) || left <= 0 ? 0 : (int)(left * 1000) + 1;
    if (poll(waits, 1 + vectors, timeout) > 0) {
      if (waits[0].revents != 0) take_message();
      for (uint32_t i = 0; i < vectors; i++) {
        uint64_t counter;
        if (waits[1 + i].revents != 0) // empties the counter, and never blocks
          (void)!preadv2(eventfds[id][i], &(struct iovec){&counter, sizeof counter}, 1, -1, RWF_NOWAIT);
      }
      patience = 3;
      awake = true;
      evaluate(false);
    } else if (reminds && !awake && now() >= next_reminder) {
      ring(RING_VECTOR);
      if (++reminded < 3) next_reminder = now() + reminders[reminded];
    }
  }
}

int main(int argc, char **argv) {
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (argc != 2) die("usage: echo-peer SOCKET");
  struct sigaction action = {.sa_handler = stop};
  sigaction(SIGTERM, &action, NULL);
  sigaction(SIGINT, &action, NULL);
  join(argv[1]);
  publish(RESET);
  ring(STATE_VECTOR);
  run();
  leave();
  return 0;
}
