#!/usr/bin/perl
# Leaks: what is left when a job of two is stopped (SIGTSTP) and its first process, the leader of
#   the process group, has exited: the two, still stopped, and the shell-like session leader that
#   started the job. There is no terminal.
# Remains after leak: 3 alive, 0 zombies.
#   State: T for the two; their process group has the number of a process that is no more.
# Missed by: a detector that looks for the leader of a group, one that sends SIGTERM only (it stays
#   pending as long as they are stopped), and one that counts only R, S and D.
# While the session leader lives, the group is not orphaned. When it ends (here after 120 s), the
#   kernel sends SIGHUP and SIGCONT to the stopped group, which ends them, too.

use strict;
use warnings;
use POSIX ();

use constant LIFE => 120;

$SIG{PIPE} = 'IGNORE';     # dying of SIGPIPE would look like being cleaned up
$SIG{CHLD} = 'DEFAULT';    # a caller that ignores it would break waitpid
alarm 30;                  # bounds main only: fork does not inherit it

my $mode = @ARGV == 1 ? $ARGV[0] : '';
if ($mode ne 'leak' && $mode ne 'clean') {
    print STDERR "usage: $0 leak|clean\n";
    exit 2;
}

pipe my $ready_r, my $ready_w or exit 1;
pipe my $stop_r,  my $stop_w  or exit 1;

# Its pid, once it is in the process group; 0 for a new one.
sub start_in_group {
    my ($group) = @_;
    pipe my $exit_r, my $exit_w or POSIX::_exit(1);
    my $pid = fork // POSIX::_exit(1);
    if ($pid == 0) {
        close $_ for $exit_w, $ready_w, $stop_r;
        alarm LIFE;
        sysread $exit_r, my $byte, 1;
        POSIX::_exit(0);
    }
    close $exit_r;
    POSIX::setpgid($pid, $group || $pid) or POSIX::_exit(1);
    return ($pid, $exit_w);
}

sub session {
    alarm LIFE;
    POSIX::setsid();
    my ($leader, $leader_exit) = start_in_group(0);
    # They hold the other ends of the earlier pipes, too, but only these are told by a byte.
    my ($second, $second_exit) = start_in_group($leader);
    my ($third,  $third_exit)  = start_in_group($leader);
    for my $pid ($second, $third) {
        kill 'TSTP', $pid;
        # It has stopped or it is dead; and it is not dead.
        waitpid($pid, POSIX::WUNTRACED()) == $pid or POSIX::_exit(1);
        waitpid($pid, POSIX::WNOHANG()) == 0 or POSIX::_exit(1);
    }
    syswrite $leader_exit, 'x';
    waitpid $leader, 0;
    syswrite $ready_w, 'r';
    close $ready_w;
    if ($mode eq 'leak') {
        close $stop_r;
        POSIX::pause() for 1 .. 100;    # SIGALRM ends it; the bound is for stray signals
        POSIX::_exit(0);
    }
    sysread $stop_r, my $byte, 1;
    for my $job ([$second, $second_exit], [$third, $third_exit]) {
        syswrite $job->[1], 'x';
        kill 'CONT', $job->[0];
        waitpid $job->[0], 0;
    }
    POSIX::_exit(0);
}

my $child = fork // exit 1;
if ($child == 0) {
    close $ready_r;
    close $stop_w;
    session();
}
close $ready_w;
close $stop_r;
my $got = sysread $ready_r, my $byte, 1;
exit 1 if !$got;
if ($mode eq 'clean') {
    close $stop_w;
    waitpid $child, 0;
}
exit 0;
