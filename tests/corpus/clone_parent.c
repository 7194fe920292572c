// Leaks: a process made by clone(CLONE_PARENT): not a child of its creator, the main process, but
//   its sibling, a child of whoever started the main process.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that walks the tree below CMD, even while CMD lives: it was never in it.
//   And one that knows only of the child that it started: it has a second one, which it has to
//   reap, too. In clean as well: there the dead sibling is for the caller to reap, for the main
//   process cannot.

#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    int stop[2], gone[2];
    char byte;

    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    alarm(30); // bounds the main process only: a child does not inherit it
    if (pipe(stop) != 0 || pipe(gone) != 0)
        return 1;

    // No new stack, so it is a fork. It is in place when the call returns.
    long pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0) {
        perror("clone");
        return 1;
    }
    if (pid == 0) {
        alarm(LIFE);
        close(stop[1]);
        close(gone[0]);
        if (!leak && read(stop[0], &byte, 1) >= 0)
            _exit(0);
        close(gone[1]);
        for (;;)
            pause();
    }
    close(stop[0]);
    close(gone[1]);
    // It is no child of ours: waiting for it is an error. That makes it sure that it is a sibling.
    if (waitpid((pid_t)pid, NULL, 0) != -1)
        return 1;
    if (!leak) {
        close(stop[1]);
        if (read(gone[0], &byte, 1) != 0) // its end closes when it is gone
            return 1;
    }
    return 0;
}
