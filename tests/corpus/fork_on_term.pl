#!/usr/bin/perl
# Leaks: a process which, told to end by SIGTERM, forks a successor that does the same, and exits.
#   It has done so once when main exits. It gives up after 100 generations or 60 s.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that sends SIGTERM and is content when that pid is gone, and one that
#   sends SIGKILL only to the pids that it had found before SIGTERM.

use strict;
use warnings;
use POSIX ();

use constant { LIFE => 60, GENERATIONS => 100 };

$SIG{PIPE} = 'IGNORE';     # dying of SIGPIPE would look like being cleaned up
$SIG{CHLD} = 'DEFAULT';    # a caller that ignores it would break waitpid
alarm 30;                  # bounds main only: fork does not inherit it

my $mode = @ARGV == 1 ? $ARGV[0] : '';
if ($mode ne 'leak' && $mode ne 'clean') {
    print STDERR "usage: $0 leak|clean\n";
    exit 2;
}

pipe my $ready_r, my $ready_w or exit 1;
pipe my $gone_r,  my $gone_w  or exit 1;
my $end  = time + LIFE;
my $term = POSIX::SigSet->new(POSIX::SIGTERM());
my $none = POSIX::SigSet->new;

# SIGTERM is blocked but for the wait, so none is lost between two generations.
sub live {
    my ($generations) = @_;
    for my $generation (1 .. $generations) {
        my $left = $end - time;
        POSIX::_exit(0) if $left <= 0;
        alarm $left;
        syswrite $ready_w, "$$\n" if $generation <= 2;
        close $ready_w if $generation == 2;
        my $told = 0;
        local $SIG{TERM} = sub { $told = 1 };
        POSIX::sigsuspend($none) while !$told;
        last if $generation == $generations;
        # If there is no room for a fork, stay the one that lives.
        my $pid = fork;
        POSIX::_exit(0) if $pid;
    }
    POSIX::_exit(0);
}

POSIX::sigprocmask(POSIX::SIG_BLOCK(), $term);
my $first = fork;
exit 1 if !defined $first;
if ($first == 0) {
    close $ready_r;
    close $gone_r;
    close $gone_w if $mode eq 'leak';
    # The clean one does not go on when it is told for the second time.
    live($mode eq 'leak' ? GENERATIONS : 2);
}
close $ready_w;
close $gone_w;
chomp(my $pid = <$ready_r> // exit 1);
kill 'TERM', $pid;
waitpid $first, 0;
chomp($pid = <$ready_r> // exit 1);
if ($mode eq 'clean') {
    kill 'TERM', $pid;
    sysread $gone_r, my $byte, 1;    # at its end once it is gone
}
exit 0;
