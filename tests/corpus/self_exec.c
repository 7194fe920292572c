// Leaks: a process that executes itself, again and again, without a pause, for 60 s at most.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that reads several files in /proc of one process and takes them for one
//   state, one that takes what it reads in the middle of an exec (an empty environ, an empty
//   cmdline) for the truth, and one that identifies a process by what it executes.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 60
#define BEFORE_READY 3 // so many times before main may exit

static int again(int round)
{
    char number[16];
    snprintf(number, sizeof number, "%d", round);
    // The alarm goes on over an exec, the pid stays.
    execl("/proc/self/exe", "self_exec", "round", number, (char *)NULL);
    return 1;
}

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    int ready[2];
    char byte;

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(argv[1], "round") == 0) {
        // Descriptor 0 is the pipe to main.
        int round = atoi(argv[2]);
        if (round == BEFORE_READY && (write(0, "r", 1) != 1 || close(0) != 0))
            return 1;
        return again(round <= BEFORE_READY ? round + 1 : round);
    }
    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGCHLD, SIG_DFL);
    alarm(30); // bounds the main process only: a child does not inherit it
    if (pipe(ready) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        alarm(LIFE);
        dup2(ready[1], 0);
        close(ready[0]);
        close(ready[1]);
        _exit(again(1));
    }
    close(ready[1]);
    if (child < 0 || read(ready[0], &byte, 1) != 1)
        return 1;
    if (!leak && (kill(child, SIGTERM) != 0 || waitpid(child, NULL, 0) != child))
        return 1;
    return 0;
}
