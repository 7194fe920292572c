#!/usr/bin/perl
# Leaks: a child that goes to the root cgroup of the cgroup2 hierarchy, and then becomes another
#   program with an empty environment.
# Remains after leak: 1 alive, 0 zombies.
# Needs: root.
# Needs: cgroup.
# Missed by: a detector that looks in its cgroup, and for a marker in /proc/*/environ where the
#   cgroup says nothing: neither is left. Only the parentage still tells of it.

use strict;
use warnings;
use POSIX ();

$SIG{PIPE} = 'IGNORE';     # dying of SIGPIPE would look like being cleaned up
$SIG{CHLD} = 'DEFAULT';    # a caller that ignores it would break waitpid
alarm 30;                  # bounds main only: fork does not inherit it

my $mode = @ARGV == 1 ? $ARGV[0] : '';
if ($mode ne 'leak' && $mode ne 'clean') {
    print STDERR "usage: $0 leak|clean\n";
    exit 2;
}

sub root_cgroup {
    open my $file, '<', '/proc/self/mountinfo' or return;
    while (my $line = <$file>) {
        return (split / /, $line)[4] if $line =~ / - cgroup2 /;
    }
    return;
}

sub move_self_to {
    my ($cgroup) = @_;
    open my $file, '>', "$cgroup/cgroup.procs" or return 0;
    return print({$file} "$$\n") && close $file;
}

my $root = root_cgroup() or exit 1;
pipe my $ready_r, my $ready_w or exit 1;

my $child = fork;
exit 1 if !defined $child;
if ($child == 0) {
    close $ready_r;
    move_self_to($root) or POSIX::_exit(1);
    syswrite $ready_w, 'r';
    %ENV = ();
    # The pipe closes at this exec (as all of Perl's do), which tells main that it is done.
    exec { '/bin/sleep' } 'sleep', '120' or syswrite $ready_w, 'failed';
    POSIX::_exit(1);
}
close $ready_w;
my $said = do { local $/ = undef; <$ready_r> };
exit 1 if $said ne 'r';
if ($mode eq 'clean') {
    kill 'TERM', $child;
    waitpid $child, 0;
}
exit 0;
