// Leaks: the init (pid 1) of a new pid namespace in a new user namespace, and a child of its own,
//   pid 2 in there.
// Remains after leak: 2 alive, 0 zombies.
// Missed by: a detector that believes the pids that the processes themselves tell (1 and 2), one
//   that sends SIGTERM to the init (a namespace's init gets no signal that it has no handler for,
//   not even its own SIGALRM; SIGKILL from outside works), and one whose processes must be in its
//   own user namespace.

#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120

static void end(int number)
{
    (void)number;
    _exit(0);
}

static void live(int ready)
{
    alarm(LIFE);
    if (write(ready, "r", 1) != 1)
        _exit(1);
    close(ready);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    int ready[2];
    char byte;

    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    alarm(30); // bounds the main process only: a child does not inherit it
    if (pipe(ready) != 0)
        return 1;
    long pid = syscall(SYS_clone, CLONE_NEWUSER | CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
    if (pid < 0) {
        perror("clone");
        return 1;
    }
    if (pid == 0) {
        close(ready[0]);
        signal(SIGALRM, end);
        if (getpid() != 1)
            _exit(1);
        pid_t child = fork();
        if (child < 0)
            _exit(1);
        // Child or not, it goes on the same way.
        live(ready[1]);
    }
    close(ready[1]);
    for (int count = 0; count < 2; count++)
        if (read(ready[0], &byte, 1) != 1)
            return 1;
    if (!leak) {
        // The kernel ends the whole namespace with its init, before the init can be waited for.
        if (kill((pid_t)pid, SIGKILL) != 0 || waitpid((pid_t)pid, NULL, 0) != pid)
            return 1;
    }
    return 0;
}
