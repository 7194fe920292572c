// Leaks: a process that is stuck in vfork(), and its child, which neither execs nor exits.
// Remains after leak: 2 alive, 0 zombies.
//   State: D (uninterruptible) for the parent.
// Missed by: a detector that counts only R and S, and one that sends a signal that the parent has
//   a handler for and waits for an answer: until the child is gone it handles none; only one that
//   is fatal ends it. Both have the same memory, environ and argv.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
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
    pid_t parent = fork();
    if (parent == 0) {
        alarm(LIFE);
        close(ready[0]);
        close(stop[1]);
        pid_t child = vfork();
        if (child == 0) {
            // Strictly, nothing but exec and _exit is allowed here; these calls are system calls
            // that do no harm to the memory of the parent.
            alarm(LIFE);
            if (write(ready[1], "r", 1) != 1)
                _exit(1);
            while (leak)
                pause();
            _exit(read(stop[0], &byte, 1) == 0 ? 0 : 1);
        }
        _exit(child < 0 || waitpid(child, NULL, 0) != child);
    }
    close(ready[1]);
    close(stop[0]);
    // While its child is there, the parent is in vfork: nothing else can be the case.
    if (parent < 0 || read(ready[0], &byte, 1) != 1)
        return 1;
    if (!leak) {
        close(stop[1]);
        if (waitpid(parent, NULL, 0) != parent)
            return 1;
    }
    return 0;
}
