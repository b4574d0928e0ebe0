/* Init of the lab's guest: a counter in memory that clients read over TCP and UDP.
 *
 * On connection, and for every line received, the guest answers
 *     counter N reply K boot UUID
 * N grows about every 10 ms; K grows by one with every answer, so a client that ever sees
 * the same K twice has seen state that a failover lost. A UDP datagram is answered the same.
 * Lines: "get", "reboot", "poweroff", "crash", "dirty KIB" (memory to dirty in every tick).
 * Port 7000 for both protocols.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 7000, TICK_MS = 10, CLIENTS = 32, LINE = 128, PAGE = 4096, ARENA = 16 << 20 };

static unsigned long counter, reply;
static long dirty_bytes;
static char boot_id[64];
static unsigned char arena[ARENA];

static long now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void tick(void)
{
    static size_t next;
    counter++;
    for (long done = 0; done < dirty_bytes; done += PAGE) {
        memcpy(arena + next, &counter, sizeof counter);
        next = (next + PAGE) % ARENA;
    }
}

static int answer(char *out)
{
    return snprintf(out, LINE, "counter %lu reply %lu boot %s\n", counter, ++reply, boot_id);
}

static void crash(void)
{
    int fd = open("/proc/sysrq-trigger", O_WRONLY);
    if (fd >= 0 && write(fd, "c", 1) != 1)
        close(fd);
}

/* Returns 0 when the client is gone. */
static int serve(int fd)
{
    char in[LINE], out[LINE];
    ssize_t n = read(fd, in, sizeof in - 1);
    if (n <= 0)
        return n < 0 && errno == EAGAIN;
    in[n] = 0;
    if (!strncmp(in, "reboot", 6))
        reboot(RB_AUTOBOOT);
    else if (!strncmp(in, "poweroff", 8))
        reboot(RB_POWER_OFF);
    else if (!strncmp(in, "crash", 5))
        crash();
    else if (!strncmp(in, "dirty ", 6))
        dirty_bytes = atol(in + 6) * 1024;
    return write(fd, out, answer(out)) > 0;
}

static void serve_datagram(int fd)
{
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    char in[LINE], out[LINE];
    if (recvfrom(fd, in, sizeof in, MSG_DONTWAIT, (void *)&from, &size) >= 0)
        sendto(fd, out, answer(out), 0, (void *)&from, size);
}

static int bound_socket(int kind)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    int one = 1, fd = socket(AF_INET, kind, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&any, sizeof any) || (kind == SOCK_STREAM && listen(fd, CLIENTS)))
        perror("bind");
    return fd;
}

static void greet(struct pollfd *fds, int listener)
{
    char out[LINE];
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (int i = 2; i < CLIENTS; i++)
        if (fds[i].fd < 0 && write(fd, out, answer(out)) > 0) {
            fds[i] = (struct pollfd){.fd = fd, .events = POLLIN};
            return;
        }
    close(fd);
}

int main(void)
{
    struct pollfd fds[CLIENTS];
    FILE *id = fopen("/proc/sys/kernel/random/boot_id", "r");
    long due = now_ms() + TICK_MS;

    signal(SIGPIPE, SIG_IGN); /* a client that went away must not end the guest */
    if (!id || fscanf(id, "%63s", boot_id) != 1)
        perror("boot_id");
    for (int i = 0; i < CLIENTS; i++)
        fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    fds[0].fd = bound_socket(SOCK_STREAM);
    fds[1].fd = bound_socket(SOCK_DGRAM);
    printf("lab guest: counter on port %d, boot %s\n", PORT, boot_id);
    fflush(stdout);
    for (;;) {
        long left = due - now_ms();
        if (left <= 0) {
            tick();
            due = now_ms() + TICK_MS;
            left = TICK_MS;
        }
        if (poll(fds, CLIENTS, (int)left) <= 0)
            continue;
        if (fds[0].revents)
            greet(fds, fds[0].fd);
        if (fds[1].revents)
            serve_datagram(fds[1].fd);
        for (int i = 2; i < CLIENTS; i++)
            if (fds[i].fd >= 0 && fds[i].revents && !serve(fds[i].fd)) {
                close(fds[i].fd);
                fds[i].fd = -1;
            }
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
