#!/usr/bin/env node
// Leaks: a child started with child_process.spawn, `detached` and without stdio, then unref():
//   the way Node's manual describes for a process that is to outlive its parent.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that ends process group or session (`detached` means setsid), and one that
//   waits for the end of file on the stdout and stderr of CMD.
'use strict';

const { spawn } = require('node:child_process');

const mode = process.argv[2];
if (process.argv.length !== 3 || !['leak', 'clean'].includes(mode)) {
  console.error('usage: node node_detached.js leak|clean');
  process.exit(2);
}
// It does not keep the main process alive, but bounds it.
setTimeout(() => process.exit(1), 30_000).unref();

// Node ignores SIGPIPE, but gives its children the default back: the shell is for that.
const child = spawn('/bin/sh', ['-c', "trap '' PIPE; exec sleep 120"], {
  detached: true,
  stdio: 'ignore',
});
child.on('error', () => process.exit(1));
// 'spawn' comes when the exec is done.
child.on('spawn', () => {
  if (mode === 'leak') {
    // Nothing is left to wait for: the main process ends.
    child.unref();
  } else {
    // 'exit' comes when it has been waited for.
    child.on('exit', () => process.exit(0));
    child.kill('SIGTERM');
  }
});
