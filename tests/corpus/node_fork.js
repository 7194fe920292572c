#!/usr/bin/env node
// Leaks: a second Node, started with child_process.fork, whose channel to the parent has been
//   closed and which has a timer that keeps it alive: a process of several threads.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that takes the end of the channel for the end of the child, and one that
//   takes "node" for its own helper or the caller's.
'use strict';

const { fork } = require('node:child_process');

const LIFE = 120_000;
const mode = process.argv[2];

function child() {
  setTimeout(() => process.exit(0), LIFE);
  process.on('message', () => process.exit(0));
  process.send('ready');
}

function main() {
  // It does not keep the main process alive, but bounds it.
  setTimeout(() => process.exit(1), 30_000).unref();
  const forked = fork(__filename, ['child']);
  forked.on('error', () => process.exit(1));
  forked.on('message', () => {
    if (mode === 'leak') {
      forked.disconnect();
      // Nothing is left to wait for: the main process ends.
      forked.unref();
    } else {
      // 'exit' comes when it has been waited for.
      forked.on('exit', (code) => process.exit(code));
      forked.send('over');
    }
  });
}

if (process.argv.length === 3 && mode === 'child' && process.send) {
  child();
} else if (process.argv.length === 3 && ['leak', 'clean'].includes(mode)) {
  main();
} else {
  console.error('usage: node node_fork.js leak|clean');
  process.exit(2);
}
