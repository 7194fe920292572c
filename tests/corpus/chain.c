// Leaks: a chain of 100 processes: each is the child of the one before, all are alive.
// Remains after leak: 100 alive, 0 zombies.
// Missed by: a detector that goes down the tree to some depth, or with one walk through /proc per
//   generation; and one that ends parents first and looks at what it has then inherited once: each
//   end brings up one more.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH 100
#define LIFE 120

// This process and all after it. It returns only in clean, when all after it are gone.
static int link_from(int number, int leak, int ready, int stop)
{
    char byte;
    int status;

    alarm(LIFE);
    if (number == LENGTH) {
        // All before it are alive: each waits for the next one.
        if (write(ready, "r", 1) != 1)
            return 1;
        while (leak)
            pause();
        return read(stop, &byte, 1) == 0 ? 0 : 1;
    }
    pid_t child = fork();
    if (child == 0)
        _exit(link_from(number + 1, leak, ready, stop));
    close(ready);
    if (child < 0)
        return 1;
    // In leak nobody tells the last one to end; should one be ended, those before it stay.
    if (waitpid(child, &status, 0) != child)
        return 1;
    while (leak)
        pause();
    return status == 0 ? 0 : 1;
}

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
        close(ready[0]);
        close(stop[1]);
        _exit(link_from(1, leak, ready[1], stop[0]));
    }
    close(ready[1]);
    close(stop[0]);
    if (child < 0 || read(ready[0], &byte, 1) != 1)
        return 1;
    if (!leak) {
        int status;
        close(stop[1]);
        if (waitpid(child, &status, 0) != child || status != 0)
            return 1;
    }
    return 0;
}
