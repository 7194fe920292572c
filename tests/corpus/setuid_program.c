// Leaks: a set-uid program: uid 65534 has started it, its effective and saved uid are 65533.
// Remains after leak: 1 alive, 0 zombies.
// Needs: root.
//   To make the program: a copy of this one, given to 65533 and made set-uid. It is in a fresh
//   folder, which is gone again when main exits, in a place that is not mounted nosuid.
// Missed by: a detector that looks for the processes of one uid, real or effective, and one that
//   set PR_SET_PDEATHSIG beforehand: such an exec clears it. Also by one that reads environ or exe
//   without privileges: the kernel lets nobody but root read those of a set-uid program.

#define _GNU_SOURCE
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIFE 120
#define CALLER 65534
#define OWNER 65533

static int give_up(const char *what)
{
    perror(what);
    return 1;
}

// The program itself, after exec. Descriptor 1 is the pipe to main.
static int hold(void)
{
    if (getuid() != CALLER || geteuid() != OWNER || write(1, "r", 1) != 1)
        return 1;
    close(1);
    alarm(LIFE);
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
    // In this order: a change of owner clears the set-uid bit. Closed, or exec says ETXTBSY.
    if (fchown(out, OWNER, OWNER) != 0 || fchmod(out, 04755) != 0)
        return -1;
    return close(in) | close(out);
}

// A fresh folder where set-uid works.
static int make_folder(char *path, size_t size)
{
    const char *temporary = getenv("TMPDIR");
    const char *places[] = {temporary ? temporary : "/tmp", "/tmp", "/var/tmp", "/run", "/"};
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        struct statvfs mount;
        if (statvfs(places[i], &mount) != 0 || mount.f_flag & (ST_NOSUID | ST_NOEXEC))
            continue;
        snprintf(path, size, "%s/hcXXXXXX", places[i]);
        if (mkdtemp(path) != NULL)
            return chmod(path, 0711);
    }
    fprintf(stderr, "no folder that is not mounted nosuid\n");
    return -1;
}

int main(int argc, char **argv)
{
    int leak = argc == 2 && strcmp(argv[1], "leak") == 0;
    int ready[2];
    char folder[4096], program[4104], byte;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    if (argc == 3 && strcmp(argv[1], "set-uid") == 0)
        return hold();
    if (!leak && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        fprintf(stderr, "usage: %s leak|clean\n", argv[0]);
        return 2;
    }
    alarm(30); // bounds the main process only: a child does not inherit it
    if (make_folder(folder, sizeof folder) != 0 || pipe(ready) != 0)
        return give_up("preparing");
    snprintf(program, sizeof program, "%s/program", folder);
    if (copy_self(program) != 0)
        return give_up(program);

    pid_t child = fork();
    if (child == 0) {
        dup2(ready[1], 1);
        close(ready[0]);
        close(ready[1]);
        if (setgroups(0, NULL) != 0 || setresgid(CALLER, CALLER, CALLER) != 0 ||
            setresuid(CALLER, CALLER, CALLER) != 0)
            _exit(1);
        execl(program, "program", "set-uid", "hold", (char *)NULL);
        _exit(1);
    }
    close(ready[1]);
    int started = child > 0 && read(ready[0], &byte, 1) == 1;
    if (unlink(program) != 0 || rmdir(folder) != 0)
        return give_up(folder);
    if (!started) {
        fprintf(stderr, "not started with another effective uid (no_new_privs?)\n");
        return 1;
    }
    if (!leak && (kill(child, SIGTERM) != 0 || waitpid(child, NULL, 0) != child))
        return give_up("ending it");
    return 0;
}
