"use strict";
// The job as a task of graphile-worker. `node graphile.cjs work JOBS_AT_ONCE SETUP` runs it; `node graphile.cjs
// push TASK` adds jobs as its standard input asks ("one 100", "many 100"), and answers with when that was done.

const fs = require("node:fs");
const path = require("node:path");
const readline = require("node:readline");
const load = require("node:module").createRequire(path.join(process.env.PEERS_NODE, "here.js"));
const { run, makeWorkerUtils, Logger } = load("graphile-worker");

const connectionString = process.env.PEERS_DSN;
const logger = new Logger(() => (level, message) => {
  if (level === "error" || level === "warning") console.error(message);
});

function epoch() {
  return (performance.timeOrigin + performance.now()) / 1000;
}

async function work(concurrentJobs, setup) {
  const tally = fs.openSync(process.env.PEERS_TALLY, "a");
  const moment = Buffer.alloc(8);
  const mark = () => {
    moment.writeDoubleLE(epoch());
    fs.writeSync(tally, moment);
  };
  const fastest = {
    maxPoolSize: 10,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  };
  const runner = await run({
    preset: { worker: { connectionString, concurrentJobs, logger, ...(setup === "fastest" ? fastest : {}) } },
    taskList: { job: mark, async_job: async () => mark() },
  });
  await runner.promise;
}

async function push(task) {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  console.log("ready");
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const [way, number] = line.split(" ");
    if (way === "one") {
      for (let left = Number(number); left > 0; left--) await utils.addJob(task, {});
    } else {
      await utils.addJobs(Array.from({ length: Number(number) }, () => ({ identifier: task, payload: {} })));
    }
    console.log(epoch());
  }
  await utils.release();
}

const [verb, ...rest] = process.argv.slice(2);
(verb === "work" ? work(Number(rest[0]), rest[1]) : push(rest[0])).catch((error) => {
  console.error(error);
  process.exit(1);
});
