#!/usr/bin/perl
# Leaks: a process in its own session that overwrote its argv and its environ area, so that it
#   looks like a kernel thread, "[kworker/0:1]", in ps and in /proc/PID/comm.
# Remains after leak: 1 alive, 0 zombies.
# Missed by: a detector that looks for a marker in /proc/*/environ (there are only blanks), one
#   that matches /proc/*/cmdline or the name, and one that leaves out what looks like a kernel
#   thread.
# Perl's assignment to $0 uses the argv area and the environ area behind it, and blanks the rest.
# The case checks that: it fails if a variable can still be seen.

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

sub slurp {
    my ($path) = @_;
    open my $file, '<:raw', $path or return "KEY=unreadable $path";
    local $/ = undef;
    return scalar <$file> // '';
}

sub rewritten {
    my $environ = slurp('/proc/self/environ');
    return 0 if grep { index($environ, "$_=") >= 0 } keys %ENV;
    return slurp('/proc/self/cmdline') =~ /\A\[kworker\/0:1\][\0 ]*\z/;
}

pipe my $ready_r, my $ready_w or exit 1;
pipe my $stop_r,  my $stop_w  or exit 1;

my $child = fork;
exit 1 if !defined $child;
if ($child == 0) {
    alarm LIFE;
    POSIX::setsid();
    close $ready_r;
    close $stop_w;
    $0 = '[kworker/0:1]';
    POSIX::_exit(1) if !rewritten();
    syswrite $ready_w, 'r';
    close $ready_w;
    if ($mode eq 'leak') {
        close $stop_r;
        POSIX::pause() for 1 .. 100;    # SIGALRM ends it; the bound is for stray signals
        POSIX::_exit(0);
    }
    sysread $stop_r, my $nothing, 1;
    POSIX::_exit(0);
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
