#!/usr/bin/env node
// Leaks: the child of a cluster worker. The worker starts it, reports, and exits; then the primary
//   ends, too, since there are no workers left.
// Remains after leak: 1 alive, 0 zombies.
// Missed by: a detector that knows what the primary has started: that is all over, in good order
//   and with status 0. And by one that walks the tree of parents: the link in between is gone.
'use strict';

const { spawn } = require('node:child_process');
const cluster = require('node:cluster');

const mode = process.argv[2];
if (process.argv.length !== 3 || !['leak', 'clean'].includes(mode)) {
  console.error('usage: node node_cluster_worker.js leak|clean');
  process.exit(2);
}
// It does not keep a process alive, but bounds primary and worker.
setTimeout(() => process.exit(1), 30_000).unref();

function primary() {
  let said;
  const worker = cluster.fork();
  worker.on('message', (message) => {
    said = message;
  });
  worker.on('exit', (code) => process.exit(code === 0 && said === 'started' ? 0 : 1));
}

function worker() {
  // Node ignores SIGPIPE, but gives its children the default back: the shell is for that.
  const child = spawn('/bin/sh', ['-c', "trap '' PIPE; exec sleep 120"], { stdio: 'inherit' });
  // An exit with a message that is not sent yet would lose it.
  const over = () => process.send('started', () => process.exit(0));
  child.on('error', () => process.exit(1));
  child.on('spawn', () => {
    if (mode === 'leak') {
      over();
    } else {
      child.on('exit', over);
      child.kill('SIGTERM');
    }
  });
}

if (cluster.isPrimary) primary();
else worker();
