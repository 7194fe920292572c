// Leaks: a process whose name and argv have newlines, brackets, what looks like the fields of
//   /proc/PID/stat, and bytes that are not UTF-8.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that looks for the first ")" in /proc/PID/stat (it then reads state Z and
//   parent 1), one that splits such a file at blanks or newlines, one whose strings must be UTF-8,
//   and one that prints what it reads as it is: the report has lines that it did not write.

#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120
#define NAME "\n) Z 1 1\xff\xc3(\033" // 15 bytes at most
#define FIRST "a\nName:\tgood\nState:\tZ (zombie)\nPPid:\t1\n"
#define LAST "\xff\xfe \x80) R 1\r\n\033[2J"

// After exec with that argv. Descriptor 0 is the pipe to main.
static int strange(void)
{
    char name[16] = "";
    if (prctl(PR_SET_NAME, NAME) != 0 || prctl(PR_GET_NAME, name) != 0 || strcmp(name, NAME) != 0)
        return 1;
    if (write(0, "r", 1) != 1 || close(0) != 0)
        return 1;
    alarm(LIFE);
    for (;;)
        pause();
}

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    int ready[2];
    char byte;

    signal(SIGPIPE, SIG_IGN);
    if (argc == 3 && strcmp(argv[0], FIRST) == 0 && strcmp(argv[2], LAST) == 0)
        return strange();
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
        dup2(ready[1], 0);
        close(ready[0]);
        close(ready[1]);
        execl("/proc/self/exe", FIRST, "", LAST, (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    if (child < 0 || read(ready[0], &byte, 1) != 1)
        return 1;
    if (!leak && (kill(child, SIGTERM) != 0 || waitpid(child, NULL, 0) != child))
        return 1;
    return 0;
}
