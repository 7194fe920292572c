// Leaks: a family of 8. Each forks its replacement and exits every 3 to 9 ms. And each looks after
//   the other 7: for one that is gone without a replacement, it forks one. For 60 s at most.
// Remains after leak: 8-16 alive, 0 zombies.
//   More than 8 only for the instant between a fork and the exit of the elder.
// Missed by: a detector that lists and then kills, even if it repeats that until a list is empty,
//   as long as one of the 8 is not on it: that one brings back the other 7. Either all die at the
//   same instant (cgroup.kill, the end of a pid namespace), or are first kept from forking.
// A member holds the lock of its place: byte N of a memory file, locked through an open file
//   description, which a fork passes on and which the kernel closes with its last holder. So a
//   lock that can be had is the place of one that has died, and there is no instant in between.

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FAMILY 8
#define LIFE 60
#define PAUSE_NS 3000000
#define MORE_NS 6000000 // and less than this on top of it, so that they do not keep step
#define GENERATIONS 3 // of each place, before main may exit

static int leak, ready[2], stop[2], gone[2];
static char file[32]; // the path to the memory file
static time_t end;

// A new open file description with the lock of this place, or -1 if somebody lives there.
static int take(int place)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place, .l_len = 1};
    int fd = open(file, O_RDWR | O_CLOEXEC);
    if (fd >= 0 && fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int over(void)
{
    struct timespec now;
    char byte;
    clock_gettime(CLOCK_MONOTONIC, &now);
    // In clean, main closes the stop pipe: then a read is no longer "nothing yet".
    return now.tv_sec >= end || (!leak && read(stop[0], &byte, 1) == 0);
}

static void live(int place, int lock)
{
    struct timespec pause = {0};
    pid_t elder = 0;
    int generation = 0;
    while (!over()) {
        clock_gettime(CLOCK_MONOTONIC, &pause);
        pause = (struct timespec){.tv_nsec = PAUSE_NS + pause.tv_nsec % MORE_NS};
        nanosleep(&pause, NULL);
        // On a busy machine the elder can still be about to exit; never are there three.
        if (getppid() == elder)
            continue;
        for (int other = 0; other < FAMILY; other++) {
            int free_lock = other == place ? -1 : take(other);
            if (free_lock < 0)
                continue;
            if (fork() == 0) {
                close(lock);
                place = other;
                lock = free_lock;
                break;
            }
            close(free_lock);
        }
        elder = getpid();
        if (fork() > 0)
            _exit(0);
        // The child; or the fork failed: stay the one that lives.
        if (++generation == GENERATIONS && write(ready[1], "r", 1) == 1)
            close(ready[1]);
    }
    _exit(0);
}

int main(int argc, char **argv)
{
    char byte;
    struct timespec now;

    leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); // nobody in the family has zombies
    alarm(30);                // bounds the main process only: a child does not inherit it
    int memory = memfd_create("family", 0);
    if (memory < 0 || pipe(ready) != 0 || pipe2(stop, O_NONBLOCK) != 0 || pipe(gone) != 0)
        return 1;
    snprintf(file, sizeof file, "/proc/self/fd/%d", memory);
    clock_gettime(CLOCK_MONOTONIC, &now);
    end = now.tv_sec + LIFE;

    // All places are taken before the first member looks for a free one.
    int locks[FAMILY];
    for (int place = 0; place < FAMILY; place++)
        if ((locks[place] = take(place)) < 0)
            return 1;
    for (int place = 0; place < FAMILY; place++) {
        pid_t child = fork();
        if (child < 0)
            return 1;
        if (child == 0) {
            for (int other = 0; other < FAMILY; other++)
                if (other != place)
                    close(locks[other]);
            close(ready[0]);
            close(stop[1]);
            close(gone[0]);
            if (leak)
                close(gone[1]);
            live(place, locks[place]);
        }
        close(locks[place]);
    }
    close(ready[1]);
    close(gone[1]);
    for (int place = 0; place < FAMILY; place++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    if (!leak) {
        close(stop[1]);
        if (read(gone[0], &byte, 1) != 0) // at its end once all are gone
            return 1;
    }
    return 0;
}
