/* The encoder-decoder of this book in plain JavaScript: it reads a file of weights,
   computes what `tfcourse.model` computes, and writes a text token by token. It has no
   library and no page: node runs it as well.

   A sequence is an array of rows, one Float32Array for each token. Nothing is cached:
   every step reads all that was written before. That costs time and changes no number,
   so that each switch below may be thrown at any moment. */
globalThis.tfTransformer = (() => {
  "use strict";

  // ---- 1. The file: safetensors ------------------------------------------------------
  // Eight bytes say how long the header is. The header, in JSON, says of each tensor its
  // type, its shape, and where its bytes begin and end. The numbers follow.

  const READERS = {
    F16: { bytes: 2, read: (view, at) => halfToNumber(view.getUint16(at, true)) },
    F32: { bytes: 4, read: (view, at) => view.getFloat32(at, true) },
  };

  function readSafetensors(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { header, start } = readHeader(bytes, view);
    const tensors = {};
    for (const [name, about] of Object.entries(header)) {
      if (name !== "__metadata__") tensors[name] = readTensor(view, start, name, about);
    }
    return tensors;
  }

  function readHeader(bytes, view) {
    const length = bytes.length < 8 ? Infinity : Number(view.getBigUint64(0, true));
    if (length > bytes.length - 8) {
      throw new Error("The weights are cut short, or are no safetensors file.");
    }
    try {
      const text = new TextDecoder("utf-8", { fatal: true }).decode(
        bytes.subarray(8, 8 + length),
      );
      return { header: JSON.parse(text), start: 8 + length };
    } catch {
      throw new Error("The header of the weights cannot be read: the file is damaged.");
    }
  }

  function readTensor(view, start, name, { dtype, shape, data_offsets: [from, to] }) {
    const reader = READERS[dtype];
    if (!reader) throw new Error(`Weight ${name} has type ${dtype}, not F16 or F32.`);
    const count = shape.reduce((product, size) => product * size, 1);
    if (to - from !== count * reader.bytes || start + to > view.byteLength) {
      throw new Error(`Weight ${name} is cut short: the file is damaged.`);
    }
    const data = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      data[i] = reader.read(view, start + from + i * reader.bytes);
    }
    return { shape, data };
  }

  // One bit for the sign, five for the exponent, ten for the fraction (IEEE 754).
  function halfToNumber(bits) {
    const sign = bits >> 15 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = bits & 1023;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? NaN : sign * Infinity;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }

  // The checksum of zip and gzip: it tells a damaged file from a whole one.
  function crc32(bytes) {
    let crc = ~0;
    for (const byte of bytes) {
      crc ^= byte;
      for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
    }
    return ~crc >>> 0;
  }

  // ---- 2. Arithmetic -----------------------------------------------------------------

  function dot(a, b, length, startA = 0, startB = 0) {
    let sum = 0;
    for (let i = 0; i < length; i++) sum += a[startA + i] * b[startB + i];
    return sum;
  }

  // W x + b for each row x. A weight is [out, in], row after row, as in PyTorch.
  function linear(rows, { weight, bias }) {
    const [out, width] = weight.shape;
    return rows.map((row) => {
      const result = new Float32Array(out);
      for (let o = 0; o < out; o++) {
        result[o] = dot(weight.data, row, width, o * width) + (bias ? bias.data[o] : 0);
      }
      return result;
    });
  }

  const add = (a, b) => a.map((row, i) => row.map((value, j) => value + b[i][j]));
  const relu = (rows) => rows.map((row) => row.map((value) => Math.max(0, value)));

  // Each row to mean 0 and variance 1, then scaled and shifted feature by feature.
  function layerNorm(rows, { weight, bias }, epsilon) {
    return rows.map((row) => {
      const mean = row.reduce((sum, value) => sum + value, 0) / row.length;
      const variance =
        row.reduce((sum, value) => sum + (value - mean) ** 2, 0) / row.length;
      const scale = 1 / Math.sqrt(variance + epsilon);
      return row.map((value, i) => (value - mean) * scale * weight.data[i] + bias.data[i]);
    });
  }

  // exp(s) / sum of exp(s). The largest is subtracted first: it changes no share, and
  // exp cannot overflow. Where every score is -Infinity nothing may be seen: all zero.
  function softmax(scores) {
    const largest = Math.max(...scores);
    if (largest === -Infinity) return scores.map(() => 0);
    const powers = scores.map((score) => Math.exp(score - largest));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum);
  }

  function logSoftmax(logits) {
    const largest = Math.max(...logits);
    const sum = logits.reduce((total, logit) => total + Math.exp(logit - largest), 0);
    return Array.from(logits, (logit) => logit - largest - Math.log(sum));
  }

  // Sines at even features, cosines at odd ones, of wavelengths from 2 pi upwards.
  function sinusoid(position, width) {
    const row = new Float32Array(width);
    for (let i = 0; i < width; i += 2) {
      const angle = position * 10000 ** (-i / width);
      row[i] = Math.sin(angle);
      row[i + 1] = Math.cos(angle);
    }
    return row;
  }

  // ---- 3. Attention ------------------------------------------------------------------
  // Queries come from the rows that ask; keys and values from those that are asked. For
  // each head and each query: a score for every key, shares of one by softmax, and the
  // values mixed in those shares.

  function attention(rows, asked, heads, layer, { maySee, isOff, record }) {
    const [queries, keys, values] = project(rows, asked, layer);
    const width = queries[0].length / heads;
    const mixed = rows.map(() => new Float32Array(width * heads));
    for (let head = 0; head < heads; head++) {
      const start = head * width; // a head has `width` features, from here
      const weights = queries.map((query, q) => {
        if (isOff(head)) return keys.map(() => 0);
        const scores = keys.map((key, k) => {
          if (!maySee(q, k)) return -Infinity;
          return dot(query, key, width, start, start) / Math.sqrt(width);
        });
        return softmax(scores);
      });
      record(head, weights);
      mix(weights, values, mixed, start, width);
    }
    return linear(mixed, layer.out);
  }

  function mix(weights, values, mixed, start, width) {
    weights.forEach((shares, q) => {
      shares.forEach((share, k) => {
        for (let i = start; i < start + width; i++) {
          mixed[q][i] += share * values[k][i];
        }
      });
    });
  }

  // One matrix holds the projections of queries, keys and values, one below the other.
  function project(rows, asked, layer) {
    const cut = (all, part) => {
      const width = all[0].length / 3;
      return all.map((row) => row.subarray(part * width, (part + 1) * width));
    };
    const own = linear(rows, layer.in);
    const theirs = asked === rows ? own : linear(asked, layer.in);
    return [cut(own, 0), cut(theirs, 1), cut(theirs, 2)];
  }

  // ---- 4. The model ------------------------------------------------------------------

  // What can be switched off, to see what it was good for.
  const intact = () => ({ positions: true, causal: true, cross: true, headsOff: new Set() });
  const headName = (kind, layer, head) => `${kind} ${layer} ${head}`;

  class Transformer {
    constructor(tensors, config) {
      checkConfig(config);
      this.tensors = tensors;
      this.config = config;
      this.embedding = this.part("embedding.weight");
      this.encoder = this.stack("encoder", config.num_encoder_layers, ["self"]);
      this.decoder = this.stack("decoder", config.num_decoder_layers, ["self", "cross"]);
      checkShapes(this);
    }

    part(name) {
      const tensor = this.tensors[name];
      if (!tensor) throw new Error(`The file has no weight ${name}.`);
      return tensor;
    }

    pair(name) {
      return { weight: this.part(`${name}.weight`), bias: this.part(`${name}.bias`) };
    }

    stack(name, layers, attentions) {
      const blocks = Array.from({ length: layers }, (_, layer) => {
        const inside = `${name}.blocks.${layer}`;
        const block = {
          widen: this.pair(`${inside}.feed_forward.widen`),
          narrow: this.pair(`${inside}.feed_forward.narrow`),
          norm: this.pair(`${inside}.around_feed_forward.norm`),
        };
        for (const kind of attentions) {
          block[kind] = {
            in: this.pair(`${inside}.${kind}_attention.project_in`),
            out: this.pair(`${inside}.${kind}_attention.project_out`),
            norm: this.pair(`${inside}.around_${kind}.norm`),
          };
        }
        return block;
      });
      return { blocks, norm: this.pair(`${name}.last_norm`) };
    }

    // One vector for each token of the source; each has seen all others.
    encode(source, switches = intact(), record = () => {}) {
      let rows = this.embed(source, switches);
      this.encoder.blocks.forEach((block, layer) => {
        const look = { kind: "encoder", layer, maySee: () => true, switches, record };
        rows = this.residual(rows, block.self.norm, (x) => this.attend(x, x, block.self, look));
        rows = this.residual(rows, block.norm, (x) => feedForward(x, block));
      });
      return this.normalise(rows, this.encoder.norm);
    }

    // For each token written so far, one number for every token that might come next.
    decode(tokens, memory, switches = intact(), record = () => {}) {
      const causal = (query, key) => !switches.causal || key <= query;
      let rows = this.embed(tokens, switches);
      this.decoder.blocks.forEach((block, layer) => {
        const own = { kind: "decoder", layer, maySee: causal, switches, record };
        const cross = { ...own, kind: "cross", maySee: () => switches.cross };
        rows = this.residual(rows, block.self.norm, (x) => this.attend(x, x, block.self, own));
        rows = this.residual(rows, block.cross.norm, (x) =>
          this.attend(x, memory, block.cross, cross),
        );
        rows = this.residual(rows, block.norm, (x) => feedForward(x, block));
      });
      // The embedding, used a second time: logits are dot products with its rows.
      return linear(this.normalise(rows, this.decoder.norm), { weight: this.embedding });
    }

    embed(tokens, switches) {
      const width = this.config.d_model;
      if (tokens.length > this.config.max_seq_len) {
        throw new Error(`${tokens.length} tokens are more than ${this.config.max_seq_len}.`);
      }
      return tokens.map((token, position) => {
        const row = this.embedding.data.slice(token * width, (token + 1) * width);
        const place = sinusoid(position, width);
        return row.map(
          (value, i) => value * Math.sqrt(width) + (switches.positions ? place[i] : 0),
        );
      });
    }

    // Pre-norm: the layer reads a normalised copy, and its output is added to the rows.
    residual(rows, norm, layer) {
      return add(rows, layer(this.normalise(rows, norm)));
    }

    normalise(rows, norm) {
      return layerNorm(rows, norm, this.config.norm_eps);
    }

    attend(rows, asked, layer, { kind, layer: number, maySee, switches, record }) {
      return attention(rows, asked, this.config.num_heads, layer, {
        maySee,
        isOff: (head) => switches.headsOff.has(headName(kind, number, head)),
        record: (head, weights) => record(headName(kind, number, head), weights),
      });
    }
  }

  function feedForward(rows, block) {
    return linear(relu(linear(rows, block.widen)), block.narrow);
  }

  // The package's Transformer has more options; this file has the ones of its model.
  function checkConfig(config) {
    const wanted = {
      position: "sinusoidal",
      norm: "layer",
      norm_order: "pre",
      activation: "relu",
      gated: false,
      tie_embeddings: true,
      scale_embedding: true,
      scale_scores: true,
    };
    for (const [name, value] of Object.entries(wanted)) {
      if (config[name] !== value) {
        throw new Error(`This page computes ${name}=${value}, not ${config[name]}.`);
      }
    }
  }

  function checkShapes({ tensors, config }) {
    const { d_model: width, d_ff: hidden, vocab_size: vocabulary } = config;
    const shapes = {
      "embedding.weight": [vocabulary, width],
      "project_in.weight": [3 * width, width],
      "project_out.weight": [width, width],
      "widen.weight": [hidden, width],
      "narrow.weight": [width, hidden],
    };
    for (const [name, { shape }] of Object.entries(tensors)) {
      const wanted = Object.entries(shapes).find(([end]) => name.endsWith(end))?.[1];
      if (wanted && String(shape) !== String(wanted)) {
        throw new Error(`Weight ${name} has shape ${shape}, not ${wanted}.`);
      }
    }
  }

  // ---- 5. From logits to a text ------------------------------------------------------

  const argmax = (values) => values.reduce((best, v, i) => (v > values[best] ? i : best), 0);

  // Takes the likeliest token, writes it, and asks again. Yields each as it is chosen.
  function* greedy(model, source, { start, stop }, switches = intact()) {
    const memory = model.encode(source, switches);
    const tokens = [start];
    while (tokens.length < model.config.max_seq_len) {
      const logits = model.decode(tokens, memory, switches).at(-1);
      const token = argmax(logits);
      tokens.push(token);
      yield { token, probability: softmax(Array.from(logits))[token] };
      if (token === stop) return;
    }
  }

  // Keeps the `beams` best beginnings instead of one. A finished text is worth the mean
  // of its log-probabilities; the search ends when no beginning can become worth more.
  function beamSearch(model, source, { start, stop }, beams, switches = intact()) {
    const memory = model.encode(source, switches);
    const limit = model.config.max_seq_len - 1;
    let open = [{ tokens: [start], sum: 0 }];
    let best = null;
    const held = [];
    for (let length = 1; length <= limit; length++) {
      const longer = open.flatMap(({ tokens, sum }) =>
        likeliest(logSoftmax(model.decode(tokens, memory, switches).at(-1)), beams + 1).map(
          ([token, logProbability]) => ({
            tokens: [...tokens, token],
            sum: sum + logProbability,
          }),
        ),
      );
      longer.sort((a, b) => b.sum - a.sum);
      const ended = ({ tokens }) => tokens.at(-1) === stop;
      // An end counts if it is among the best `beams`: one beam is then greedy.
      const finished = longer.slice(0, beams).find(ended);
      if (finished && (!best || finished.sum / length > best.score)) {
        best = { tokens: finished.tokens, score: finished.sum / length };
      }
      open = longer.filter((one) => !ended(one)).slice(0, beams);
      held.push(open);
      if (best && best.score >= open[0].sum / limit) break;
    }
    if (!best || open[0].sum / limit > best.score) {
      best = { tokens: open[0].tokens, score: open[0].sum / limit };
    }
    return { ...best, held };
  }

  function likeliest(values, count) {
    const pairs = Array.from(values, (value, token) => [token, value]);
    return pairs.sort((a, b) => b[1] - a[1]).slice(0, count);
  }

  // ---- 6. Tokens ---------------------------------------------------------------------
  // A word is a run of letters with their marks; a digit stands alone; anything between
  // is one token. Joined, the pieces are the text again.

  const PIECES = /\p{Nd}|[\p{L}\p{M}\u200c\u200d]+|[^\p{Nd}\p{L}\p{M}\u200c\u200d]+/gu;
  const SPECIAL = { pad: 0, start: 1, stop: 2, unknown: 3 };

  class Tokenizer {
    constructor(symbols) {
      this.symbols = symbols;
      this.ids = new Map(symbols.map((symbol, id) => [symbol, id]));
    }

    split(text) {
      return text.match(PIECES) ?? [];
    }

    encode(text) {
      return this.split(text).map((piece) => this.ids.get(piece) ?? SPECIAL.unknown);
    }

    decode(ids) {
      const end = ids.indexOf(SPECIAL.stop);
      const text = (end < 0 ? ids : ids.slice(0, end)).filter((id) => id >= SPECIAL.unknown);
      return text.map((id) => (id === SPECIAL.unknown ? "\ufffd" : this.symbols[id])).join("");
    }
  }

  return {
    SPECIAL,
    Tokenizer,
    Transformer,
    beamSearch,
    crc32,
    greedy,
    halfToNumber,
    headName,
    intact,
    readSafetensors,
    softmax,
  };
})();

if (typeof module !== "undefined") module.exports = globalThis.tfTransformer;
