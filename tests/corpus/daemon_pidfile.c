// Leaks: a daemon after the classical recipe: fork, setsid, fork, umask, chdir to /, all
//   descriptors closed, stdio at /dev/null, its pid in a file.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that walks the tree of parents, ends process group or session, or waits
//   until a pipe or a socket that CMD has inherited is at its end: a daemon closes all of them,
//   also those that it knows nothing of.

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120

static const char *pidfile;

static void end(int number)
{
    (void)number;
    unlink(pidfile);
    _exit(0);
}

static int daemon_main(int ready)
{
    umask(022);
    if (chdir("/") != 0)
        return 1;
    close_range(0, (unsigned)ready - 1, 0);
    close_range((unsigned)ready + 1, ~0U, 0);
    // The lowest three that are free, so they become 0, 1 and 2.
    if (open("/dev/null", O_RDWR) != 0 || dup(0) != 1 || dup(0) != 2)
        return 1;
    signal(SIGTERM, end);
    signal(SIGALRM, end);
    alarm(LIFE);
    FILE *file = fopen(pidfile, "w");
    if (file == NULL || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file) != 0)
        return 1;
    if (write(ready, "r", 1) != 1)
        return 1;
    close(ready);
    for (;;)
        pause();
}

static int stop_daemon(void)
{
    int pid = 0;
    FILE *file = fopen(pidfile, "r");
    if (file == NULL || fscanf(file, "%d", &pid) != 1)
        return 1;
    fclose(file);
    struct pollfd gone = {.fd = (int)syscall(SYS_pidfd_open, pid, 0), .events = POLLIN};
    return gone.fd < 0 || kill(pid, SIGTERM) != 0 || poll(&gone, 1, -1) != 1;
}

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    const char *temporary = getenv("TMPDIR");
    char folder[4096], path[4104], byte;
    int ready[2];

    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    alarm(30); // bounds the main process only: a child does not inherit it
    snprintf(folder, sizeof folder, "%s/hcXXXXXX", temporary ? temporary : "/tmp");
    // The pipe is at 3 and 4 or above, unless main was started without stdio.
    if (mkdtemp(folder) == NULL || pipe(ready) != 0 || ready[1] < 3)
        return 1;
    snprintf(path, sizeof path, "%s/pid", folder);
    pidfile = path;
    pid_t first = fork();
    if (first == 0) {
        setsid();
        if (fork() != 0)
            _exit(0);
        _exit(daemon_main(ready[1]));
    }
    close(ready[1]);
    if (first < 0 || waitpid(first, NULL, 0) != first || read(ready[0], &byte, 1) != 1)
        return 1;
    if (!leak && (stop_daemon() != 0 || rmdir(folder) != 0))
        return 1;
    return 0;
}
