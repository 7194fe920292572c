// Leaks: a process that ignores and blocks each signal that can be, and is not dumpable.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that sends anything but SIGKILL; one that reads its environ, fd, exe or
//   cwd without privileges (of a process that is not dumpable these belong to root), and one that
//   attaches to it with ptrace.
// SIGALRM does nothing to it either: it ends when its sleep is over.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    int ready[2], stop[2];
    char byte;

    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    alarm(30); // bounds the main process only: a child does not inherit it
    if (pipe(ready) != 0 || pipe(stop) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        sigset_t all;
        close(ready[0]);
        close(stop[1]);
        for (int number = 1; number <= SIGRTMAX; number++)
            signal(number, SIG_IGN); // not SIGKILL and SIGSTOP, which it refuses
        sigfillset(&all);
        if (sigprocmask(SIG_BLOCK, &all, NULL) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0 ||
            write(ready[1], "r", 1) != 1)
            _exit(1);
        close(ready[1]);
        if (leak) {
            close(stop[0]);
            sleep(LIFE);
            _exit(0);
        }
        _exit(read(stop[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(ready[1]);
    close(stop[0]);
    if (child < 0 || read(ready[0], &byte, 1) != 1)
        return 1;
    if (!leak) {
        // SIGTERM does nothing: asked over the pipe, it ends.
        close(stop[1]);
        if (waitpid(child, NULL, 0) != child)
            return 1;
    }
    return 0;
}
