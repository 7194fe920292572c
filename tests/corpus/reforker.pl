#!/usr/bin/perl
# Leaks: a process which about every 2 ms forks a child that goes on, and exits itself. So its pid
#   changes all the time. It ends by itself after 60 s.
# Remains after leak: 1-2 alive, 0 zombies.
#   2 for the instant between the fork and the exit of the elder.
# Missed by: a detector that lists /proc and then kills what it listed (that pid is dead by then,
#   its successor was not on the list), and one that walks /proc once: while it reads, the process
#   steps from a pid not yet read to one no longer listed.

use strict;
use warnings;
use POSIX ();
use Time::HiRes ();

use constant {
    LIFE        => 60,
    PAUSE       => 0.002,
    GENERATIONS => 3,        # main exits when the pid has changed this often
};

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
pipe my $gone_r,  my $gone_w  or exit 1;

# The stop pipe is at its end when main has closed its end of it; nothing is ever written to it.
sub told_to_stop {
    my $set = '';
    vec($set, fileno($stop_r), 1) = 1;
    return select($set, undef, undef, 0) > 0;
}

sub refork {
    my $end = Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) + LIFE;
    my $generation = 0;
    my $elder = 0;
    while (Time::HiRes::clock_gettime(Time::HiRes::CLOCK_MONOTONIC()) < $end) {
        last if $mode eq 'clean' && told_to_stop();
        Time::HiRes::sleep(PAUSE);
        # On a busy machine the elder can still be about to exit; never are there three.
        next if getppid == $elder;
        my $self = $$;
        my $pid = fork;
        next if !defined $pid;    # no room for a moment: stay the one that lives
        POSIX::_exit(0) if $pid;
        $elder = $self;
        $generation++;
        if ($generation == GENERATIONS) {
            syswrite $ready_w, 'r';
            close $ready_w;
        }
    }
    POSIX::_exit(0);
}

my $first = fork;
exit 1 if !defined $first;
if ($first == 0) {
    close $ready_r;
    close $stop_w;
    close $gone_r;
    if ($mode eq 'leak') {
        close $stop_r;
        close $gone_w;
    }
    refork();
}
close $ready_w;
close $stop_r;
close $gone_w;
waitpid $first, 0;
my $got = sysread $ready_r, my $byte, 1;
exit 1 if !$got;
if ($mode eq 'clean') {
    # Every generation holds the other end of gone: its end of file says that none is left.
    close $stop_w;
    sysread $gone_r, $byte, 1;
}
exit 0;
