// Runs the model of the book in node: a job on stdin, its outcome on stdout, in JSON.
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const [scripts, files] = process.argv.slice(2);
const tf = require(path.join(scripts, "transformer.js"));
const { writeDate, findDay } = require(path.join(scripts, "live.js"));
const job = JSON.parse(fs.readFileSync(0, "utf-8"));

function run() {
  const about = JSON.parse(fs.readFileSync(path.join(files, "model.json"), "utf-8"));
  const bytes = fs.readFileSync(path.join(files, "model.safetensors"));
  const model = new tf.Transformer(tf.readSafetensors(bytes), about.config);
  const tokenizer = new tf.Tokenizer(about.symbols);
  const { languages, training } = about;

  const switches = (changes) => ({
    ...tf.intact(),
    ...changes,
    headsOff: new Set(changes.headsOff ?? []),
  });
  const logits = ({ source, target, changes = {} }) => {
    const thrown = switches(changes);
    const memory = model.encode(tokenizer.encode(source), thrown);
    const tokens = [tf.SPECIAL.start, ...tokenizer.encode(target)];
    return model.decode(tokens, memory, thrown).map((row) => [...row]);
  };
  const greedy = (text) => {
    const steps = tf.greedy(model, tokenizer.encode(text), tf.SPECIAL);
    return tokenizer.decode([...steps].map((step) => step.token));
  };
  const beam = (text) => {
    const found = tf.beamSearch(model, tokenizer.encode(text), tf.SPECIAL, about.beams);
    return [tokenizer.decode(found.tokens), found.score];
  };
  return {
    crc32: tf.crc32(bytes) === about.crc32,
    halves: (job.halves ?? []).map(tf.halfToNumber).map(String),
    logits: (job.logits ?? []).map(logits),
    greedy: (job.greedy ?? []).map(greedy),
    beam: (job.beam ?? []).map(beam),
    encoded: (job.encoded ?? []).map((text) => tokenizer.encode(text)),
    written: (job.written ?? []).map(([iso, code, style]) =>
      writeDate(iso, languages[code], style),
    ),
    found: (job.found ?? []).map(([text, code]) =>
      findDay(text, languages[code], training),
    ),
  };
}

let outcome;
try {
  outcome = run();
} catch (error) {
  outcome = { error: error.message };
}
process.stdout.write(JSON.stringify(outcome));
