#!/usr/bin/perl
# Leaks: a sleep that holds a listening socket on 127.0.0.1, which the main process had opened and
#   not closed on exec. It knows nothing of it and never answers.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that asks who opened the port: the answer, main, is gone, and the port is
#   taken all the same: who connects gets through and then waits.

use strict;
use warnings;
use IO::Socket::INET ();
use POSIX ();

$SIG{PIPE} = 'IGNORE';     # dying of SIGPIPE would look like being cleaned up
$SIG{CHLD} = 'DEFAULT';    # a caller that ignores it would break waitpid
alarm 30;                  # bounds main only: fork does not inherit it

my $mode = @ARGV == 1 ? $ARGV[0] : '';
if ($mode ne 'leak' && $mode ne 'clean') {
    print STDERR "usage: $0 leak|clean\n";
    exit 2;
}

pipe my $ready_r, my $ready_w or exit 1;
my $listener = do {
    local $^F = 1000;      # up to here nothing is closed on exec
    IO::Socket::INET->new(Listen => 5, LocalAddr => '127.0.0.1', LocalPort => 0) or exit 1;
};
my $port = $listener->sockport;

my $child = fork;
exit 1 if !defined $child;
if ($child == 0) {
    close $ready_r;
    # The pipe closes at this exec, which tells main that it is done.
    exec { '/bin/sleep' } 'sleep', '120' or syswrite $ready_w, 'failed';
    POSIX::_exit(1);
}
close $ready_w;
exit 1 if <$ready_r>;
close $listener;
# Now only the sleep holds it.
IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) or exit 1;
if ($mode eq 'clean') {
    kill 'TERM', $child;
    waitpid $child, 0;
}
exit 0;
