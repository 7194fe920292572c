// Leaks: a process whose executable has been deleted, with no other file open at all.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that asks who uses a path (of the executable, of a folder, of an open
//   file): /proc/PID/exe says "(deleted)", and there is nothing in /proc/PID/fd.

#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120

// The program itself, after exec. Descriptor 0 is the pipe to main, and the last one.
static int hold(void)
{
    alarm(LIFE);
    close(1);
    close(2);
    if (write(0, "r", 1) != 1)
        return 1;
    close(0);
    for (;;)
        pause();
}

static int copy_self(const char *to)
{
    int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0700);
    struct stat self;
    if (in < 0 || out < 0 || fstat(in, &self) != 0)
        return -1;
    for (off_t left = self.st_size; left > 0;) {
        ssize_t sent = sendfile(out, in, NULL, (size_t)left);
        if (sent <= 0)
            return -1;
        left -= sent;
    }
    return close(in) | close(out); // closed, or exec says ETXTBSY
}

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    const char *temporary = getenv("TMPDIR");
    char folder[4096], program[4104], byte;
    int ready[2];

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(argv[1], "hold") == 0)
        return hold();
    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    signal(SIGCHLD, SIG_DFL);
    alarm(30); // bounds the main process only: a child does not inherit it
    snprintf(folder, sizeof folder, "%s/hcXXXXXX", temporary ? temporary : "/tmp");
    if (mkdtemp(folder) == NULL || pipe2(ready, O_CLOEXEC) != 0)
        return 1;
    snprintf(program, sizeof program, "%s/program", folder);
    if (copy_self(program) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        dup2(ready[1], 0);
        close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
        execl(program, "program", "hold", "on", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    int started = child > 0 && read(ready[0], &byte, 1) == 1;
    if (unlink(program) != 0 || rmdir(folder) != 0 || !started)
        return 1;
    // At its end: the program has closed its last descriptor.
    if (read(ready[0], &byte, 1) != 0)
        return 1;
    if (!leak && (kill(child, SIGTERM) != 0 || waitpid(child, NULL, 0) != child))
        return 1;
    return 0;
}
