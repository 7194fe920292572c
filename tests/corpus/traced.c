// Leaks: a process (the tracee) that is stopped under ptrace, and its parent, the tracer.
// Remains after leak: 2 alive, 0 zombies.
//   State: t (tracing stop) for the tracee.
// Missed by: a detector that counts only R, S and D, one that sends the tracee SIGTERM (it goes to
//   the tracer, which does not pass it on) or SIGCONT (does nothing), and one that traces what it
//   looks at: there can be only one tracer. SIGKILL works.
// A stopped process does not act on SIGALRM: its life is bounded by a timer that sends SIGKILL.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LIFE 120

static int tracee(void)
{
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGKILL};
    struct itimerspec life = {.it_value.tv_sec = LIFE};
    timer_t timer;

    if (timer_create(CLOCK_MONOTONIC, &event, &timer) != 0 ||
        timer_settime(timer, 0, &life, NULL) != 0 || ptrace(PTRACE_TRACEME, 0, 0, 0) != 0)
        return 1;
    // Stops before it would be delivered. Without a tracer it is, and ends the process.
    raise(SIGUSR1);
    return 0; // only the clean one comes here
}

static int tracer(int leak, int ready, int stop)
{
    char byte;
    int status;

    alarm(LIFE);
    signal(SIGUSR1, SIG_DFL);
    pid_t child = fork();
    if (child == 0)
        _exit(tracee());
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return 1;
    if (write(ready, "r", 1) != 1)
        return 1;
    close(ready);
    while (leak)
        pause();
    // Go on without that signal, and without a tracer.
    if (read(stop, &byte, 1) != 0 || ptrace(PTRACE_DETACH, child, 0, 0) != 0)
        return 1;
    return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
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
        _exit(tracer(leak, ready[1], stop[0]));
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
