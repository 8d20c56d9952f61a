/* The page around transformer.js: a form, the tokens as they come, what every head looks
   at, and switches. The model is loaded when the reader asks for it, from a script, so
   that it also works in a page opened from a disk. */
(() => {
  "use strict";
  const inBrowser = typeof document !== "undefined";
  const tf = inBrowser ? globalThis.tfTransformer : require("./transformer.js");

  // ---- 1. Dates as CLDR writes them: only to ask, and to judge the answer -------------

  function writeDate(iso, language, style) {
    const [year, month, day] = iso.split("-").map(Number);
    const weekday = (new Date(Date.UTC(year, month - 1, day)).getUTCDay() + 6) % 7;
    const parts = {
      "{year}": year,
      "{month}": language.months[month - 1],
      "{number}": month,
      "{day}": day,
      "{weekday}": language.weekdays[weekday],
    };
    return language[style].map((part) => parts[part] ?? part).join("");
  }

  // The day that a text names, if it is written exactly as CLDR has it.
  function findDay(text, language, { first, last }) {
    for (let time = Date.parse(first); time <= Date.parse(last); time += 86_400_000) {
      const iso = new Date(time).toISOString().slice(0, 10);
      for (const style of ["full", "long"]) {
        if (writeDate(iso, language, style) === text) return { iso, style };
      }
    }
    return null;
  }

  if (!inBrowser) {
    module.exports = { writeDate, findDay };
    return;
  }

  // ---- 2. Small helpers --------------------------------------------------------------

  const here = document.currentScript.src;
  const root = document.getElementById("tf-live");
  const calm = matchMedia("(prefers-reduced-motion: reduce)");
  const wait = (ms) => new Promise((done) => setTimeout(done, ms));

  // What is not quite all does not look like all.
  function percent(share) {
    if (share > 0.995 && share < 1) return share > 0.999 ? ">\u00a099.9\u00a0%" : ">\u00a099\u00a0%";
    return `${(100 * share).toFixed(share > 0.0995 ? 0 : 1)}\u00a0%`;
  }

  function make(tag, props = {}, ...children) {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children.filter((child) => child !== null));
    return node;
  }

  let ids = 0;
  function field(text, control) {
    control.id = `tf-live-${ids++}`;
    return make(
      "div",
      { className: "tf-live-field" },
      make("label", { htmlFor: control.id, textContent: text }),
      control,
    );
  }

  function tick(text, type, props = {}) {
    const input = make("input", { type, ...props });
    return make("label", { className: "tf-live-tick" }, input, text);
  }

  function group(text, ...children) {
    return make("fieldset", {}, make("legend", { textContent: text }), ...children);
  }

  function button(text, onclick, main = false) {
    const className = main ? "tf-button tf-main" : "tf-button";
    return make("button", { type: "button", className, textContent: text, onclick });
  }

  // ---- 3. Loading --------------------------------------------------------------------

  function loadScript(name) {
    return new Promise((resolve, reject) => {
      const script = make("script", { src: new URL(`${name}.js`, here).href });
      script.onload = () => resolve(globalThis.tfLiveFiles?.[name]);
      script.onerror = () => {
        script.remove();
        reject(new Error(`the file ${name}.js is missing, or could not be fetched`));
      };
      document.head.append(script);
    });
  }

  async function loadFile(name) {
    const file = globalThis.tfLiveFiles?.[name] ?? (await loadScript(name));
    if (!file) throw new Error(`the file ${name}.js does not hold what it should`);
    const bytes = Uint8Array.from(atob(file.weights), (one) => one.charCodeAt(0));
    return { bytes, about: file.about };
  }

  async function loadModel() {
    const { bytes, about } = await loadFile("model");
    if (tf.crc32(bytes) !== about.crc32) {
      throw new Error("the weights are damaged: their checksum is not the expected one");
    }
    const model = new tf.Transformer(tf.readSafetensors(bytes), about.config);
    return { model, about, tokenizer: new tf.Tokenizer(about.symbols) };
  }

  function offerToLoad() {
    const status = make("p", { role: "status" });
    const load = button(
      "Load the model",
      async () => {
        load.disabled = true;
        status.textContent = "Loading …";
        try {
          new Page(await loadModel());
        } catch (error) {
          load.disabled = false;
          status.textContent = `The model cannot run: ${error.message}.`;
        }
      },
      true,
    );
    root.replaceChildren(load, status);
  }

  // ---- 4. The page -------------------------------------------------------------------

  class Page {
    constructor({ model, about, tokenizer }) {
      Object.assign(this, { model, about, tokenizer, switches: tf.intact(), run: 0 });
      this.shown = make(
        "div",
        { hidden: true },
        this.makeAnswer(),
        this.makeSwitches(),
        this.makeTokens(),
        this.makeAttention(),
      );
      root.replaceChildren(this.makeForm(), this.shown);
      this.from.value = "en";
      this.to.value = "ja";
      this.day.value = about.unseen[0];
      this.fillText();
      this.drawHeads();
      this.from.focus();
    }

    language(select) {
      return this.about.languages[select.value];
    }

    // -- what to translate

    makeForm() {
      this.from = this.languages();
      this.to = this.languages();
      const { first, last } = this.about.training;
      this.day = make("input", { type: "date", min: first, max: last, required: true });
      this.weekday = tick("with the day of the week", "checkbox", { checked: true });
      this.text = make("input", { type: "text", autocomplete: "off", spellcheck: false });
      this.greedy = tick("Greedy", "radio", { name: "tf-live-how", checked: true });
      this.beam = tick(`Beam search, ${this.about.beams} beams`, "radio", {
        name: "tf-live-how",
      });
      for (const control of [this.from, this.day, this.weekday]) {
        control.addEventListener("change", () => this.fillText());
      }
      const form = make(
        "form",
        { className: "tf-live-box", noValidate: true },
        row(
          field("From", this.from),
          field("To", this.to),
          button("Swap", () => this.swap()),
        ),
        row(
          field("Day", this.day),
          this.weekday,
          button("Another day", () => this.anotherDay()),
        ),
        field("What the model reads; you may type", this.text),
        group("The next token", row(this.greedy, this.beam)),
        row(
          make("button", { className: "tf-button tf-main", textContent: "Translate" }),
          (this.status = make("span", { role: "status" })),
        ),
      );
      form.addEventListener("submit", (event) => {
        event.preventDefault();
        this.translate(!calm.matches);
      });
      return form;
    }

    languages() {
      const select = make("select");
      for (const [code, { name, english }] of Object.entries(this.about.languages)) {
        const textContent = name === english ? name : `${name} · ${english}`;
        select.append(make("option", { value: code, lang: code, textContent }));
      }
      return select;
    }

    swap() {
      [this.from.value, this.to.value] = [this.to.value, this.from.value];
      this.fillText();
    }

    anotherDay() {
      const { unseen } = this.about;
      this.day.value = unseen[Math.floor(Math.random() * unseen.length)];
      this.fillText();
    }

    get style() {
      return this.weekday.control.checked ? "full" : "long";
    }

    fillText() {
      const language = this.language(this.from);
      setLanguage(this.text, this.from.value, language);
      if (!this.day.value) return;
      this.text.value = writeDate(this.day.value, language, this.style);
    }

    // -- translating

    // What the model reads: the name of the language that is asked for, then the text.
    read() {
      const text = this.text.value.trim();
      if (!text) throw new Error("Write a date first.");
      const request = `${this.language(this.to).name}: ${text}`;
      const source = this.tokenizer.encode(request);
      const limit = this.model.config.max_seq_len;
      if (source.length > limit) {
        throw new Error(`These are ${source.length} tokens; the model reads ${limit}.`);
      }
      const unknown = this.tokenizer
        .split(request)
        .filter((_, place) => source[place] === tf.SPECIAL.unknown);
      const day = findDay(text, this.language(this.from), this.about.training);
      const right = day && writeDate(day.iso, this.language(this.to), day.style);
      return { source, unknown, right, from: this.from.value, to: this.to.value };
    }

    async translate(slowly) {
      const run = ++this.run; // a later request ends an earlier one
      try {
        this.asked = this.read();
        const found = this.decode(this.asked.source, this.switches);
        const { tokens, probabilities, held } = found;
        this.probabilities = probabilities;
        this.status.textContent = slowly ? "Writing …" : "";
        this.heldBeams.hidden = true;
        this.verdict.replaceChildren();
        for (let count = slowly ? 2 : tokens.length; count <= tokens.length; count++) {
          this.show(tokens.slice(0, count));
          if (slowly) await wait(220);
          if (run !== this.run) return;
        }
        this.judge();
        this.showBeams(held);
      } catch (error) {
        this.status.textContent = error.message;
      }
    }

    decode(source, switches) {
      if (this.beam.control.checked) {
        const { tokens, held } = tf.beamSearch(
          this.model,
          source,
          tf.SPECIAL,
          this.about.beams,
          switches,
        );
        return { tokens, held, probabilities: [] };
      }
      const steps = [...tf.greedy(this.model, source, tf.SPECIAL, switches)];
      return {
        tokens: [tf.SPECIAL.start, ...steps.map((step) => step.token)],
        probabilities: steps.map((step) => step.probability),
        held: [],
      };
    }

    judge() {
      const { right, unknown } = this.asked;
      const written = this.written.textContent;
      const notes = [];
      if (right === null) {
        const [first, last] = ["first", "last"].map((end) =>
          this.about.training[end].slice(0, 4),
        );
        const what = `no date from ${first} to ${last} as CLDR writes it`;
        notes.push(`The text is ${what}: the page cannot say what is right.`);
      } else if (written === right) {
        notes.push("✓ Right: this is how CLDR writes it.");
      } else {
        notes.push(make("span", {}, "✗ Wrong: CLDR writes ", this.quote(right), "."));
      }
      if (unknown.length) {
        const words = unknown.map((one) => `“${one}”`).join(", ");
        notes.push(`The model has no token for ${words}.`);
      }
      if (this.changes().length) {
        const { tokens } = this.decode(this.asked.source, tf.intact());
        const whole = this.tokenizer.decode(tokens);
        const off = `Off: ${this.changes().join(", ")}. The whole model writes `;
        notes.push(make("span", {}, off, this.quote(whole), "."));
      }
      this.verdict.replaceChildren(...notes.map((note) => make("p", {}, note)));
      this.status.textContent = "Done.";
    }

    quote(text) {
      return setLanguage(
        make("bdi", { className: "tf-live-quote", textContent: text }),
        this.asked.to,
        this.about.languages[this.asked.to],
      );
    }

    showBeams(held) {
      this.heldBeams.hidden = held.length === 0;
      const items = held.map((beams) =>
        make(
          "li",
          {},
          make(
            "ul",
            {},
            ...beams.map(({ tokens, sum }) =>
              make("li", {}, this.quote(this.tokenizer.decode(tokens)), ` ${sum.toFixed(2)}`),
            ),
          ),
        ),
      );
      this.heldList.replaceChildren(...items);
    }

    // -- what was read and written

    makeAnswer() {
      this.written = make("p", { className: "tf-live-written" });
      this.verdict = make("div", { role: "status", className: "tf-live-verdict" });
      this.heldList = make("ol");
      this.heldBeams = make(
        "details",
        { hidden: true },
        make("summary", { textContent: "What the beams held after each token" }),
        make("p", {
          textContent: "With the sum of log-probabilities. A beam that has ended is gone.",
        }),
        this.heldList,
      );
      return make("div", {}, this.written, this.verdict, this.heldBeams);
    }

    makeTokens() {
      this.sourceTokens = make("ol", { className: "tf-live-tokens" });
      this.targetTokens = make("ol", { className: "tf-live-tokens" });
      for (const list of [this.sourceTokens, this.targetTokens]) {
        list.addEventListener("change", (event) => {
          this.picked = event.target.value;
          this.choose(this.picked);
        });
        list.addEventListener("mouseover", (event) => this.hover(event));
        list.addEventListener("mouseleave", () => this.drawWeights(this.chosen));
      }
      return make(
        "div",
        {},
        make("h3", { textContent: "What each head looks at" }),
        make("p", {
          textContent:
            "Choose a token by mouse or arrow keys. A token that is read looks at all " +
            "that is read; one that is being written looks at what is read and at what " +
            "is written so far: — is hidden by a mask. ␣ is a space.",
        }),
        this.makeHeadChoice(),
        group("It reads", this.sourceTokens),
        group("It writes", this.targetTokens),
      );
    }

    show(tokens) {
      const { source, from, to } = this.asked;
      this.tokens = tokens;
      this.weights = new Map();
      const record = (name, weights) => this.weights.set(name, weights);
      const memory = this.model.encode(source, this.switches, record);
      const readByDecoder = tokens.at(-1) === tf.SPECIAL.stop ? tokens.slice(0, -1) : tokens;
      this.model.decode(readByDecoder, memory, this.switches, record);
      this.shown.hidden = false;
      setLanguage(this.written, to, this.about.languages[to]);
      this.written.textContent = this.tokenizer.decode(tokens);
      this.fillTokens(this.sourceTokens, "source", source.length, from);
      this.fillTokens(this.targetTokens, "target", tokens.length, to);
      this.choose(this.finished ? this.kept() : `target ${tokens.length - 1}`);
    }

    // While it writes, the newest token is chosen; then the reader's, or the first word.
    kept() {
      const { picked, tokens } = this;
      if (picked && this.place(picked) < this.rowOf(picked).length) return picked;
      const isWord = (token) => /\p{L}/u.test(this.tokenizer.symbols[token]);
      const first = tokens.findIndex((token) => token > tf.SPECIAL.unknown && isWord(token));
      return `target ${Math.max(1, first)}`;
    }

    get finished() {
      return this.tokens.at(-1) === tf.SPECIAL.stop;
    }

    fillTokens(list, kind, length, language) {
      setLanguage(list, language, this.about.languages[language]);
      list.replaceChildren(
        ...Array.from({ length }, (_, place) => {
          const given = kind === "target" && place === 0; // start: not written by it
          const radio = given
            ? null
            : make("input", {
                type: "radio",
                name: "tf-live-token",
                value: `${kind} ${place}`,
              });
          const chip = make(
            given ? "span" : "label",
            { className: "tf-live-token" },
            radio,
            this.tokenText(...this.tokenAt(kind, place)),
            make("span", { className: "tf-live-bar", ariaHidden: "true" }, make("span")),
            make("span", { className: "tf-live-share", dir: "ltr", lang: "en" }),
          );
          return make("li", {}, chip);
        }),
      );
    }

    tokenText(token, language) {
      const isSpecial = token <= tf.SPECIAL.unknown;
      const symbol = this.tokenizer.symbols[token];
      if (isSpecial) {
        return make("em", { lang: "en", dir: "ltr", textContent: symbol.slice(1, -1) });
      }
      const shown = make("bdi", { lang: language, textContent: symbol.replace(/\s/g, "␣") });
      if (!/^\P{L}*\s\P{L}*$/u.test(symbol)) return shown;
      shown.ariaHidden = "true"; // an open box says nothing aloud
      const spoken = symbol.replace(/\s/g, " space ").trim();
      const hidden = make("span", { className: "tf-hidden", lang: "en", textContent: spoken });
      return make("span", {}, shown, hidden);
    }

    // -- attention

    makeHeadChoice() {
      const { num_encoder_layers: layers, num_heads: heads } = this.model.config;
      this.layer = numbered(layers);
      this.head = numbered(heads);
      for (const select of [this.layer, this.head]) {
        select.addEventListener("change", () => {
          this.drawHeads();
          this.choose(this.chosen);
        });
      }
      return row(field("Layer", this.layer), field("Head", this.head));
    }

    makeAttention() {
      this.headSwitches = make("div", { className: "tf-live-row" });
      this.seen = make("p", { role: "status", className: "tf-live-seen" });
      this.allHeads = make("div", { className: "tf-live-scroll", tabIndex: 0, role: "region" });
      this.allHeads.setAttribute("aria-label", "Weights of all heads");
      return make(
        "div",
        {},
        this.seen,
        make(
          "details",
          {},
          make("summary", { textContent: "This token in every head" }),
          this.allHeads,
        ),
        (this.headGroup = group("", this.headSwitches)),
      );
    }

    place(name) {
      return Number(name.split(" ")[1]);
    }

    rowOf(name) {
      return name.startsWith("source") ? this.asked.source : this.tokens;
    }

    choose(name) {
      if (!name || !this.tokens) return;
      this.chosen = name;
      const radio = this.shown.querySelector(`input[value="${name}"]`);
      if (radio) radio.checked = true;
      this.drawWeights(name);
      this.drawAllHeads();
      if (this.finished) this.describe();
    }

    hover(event) {
      const radio = event.target.closest("label")?.control;
      if (radio) this.drawWeights(radio.value);
    }

    // What a token looks at in a head: its share of each token; null: hidden by a mask.
    looks(name, layer, head) {
      const place = this.place(name);
      const get = (kind, query) => this.weights.get(tf.headName(kind, layer, head))[query];
      if (name.startsWith("source")) return { source: get("encoder", place), target: [] };
      const query = place - 1; // the decoder writes a token where it reads the one before
      const { causal, cross } = this.switches;
      return {
        source: get("cross", query).map((share) => (cross ? share : null)),
        target: get("decoder", query).map((share, k) => (causal && k > query ? null : share)),
      };
    }

    drawWeights(name) {
      if (!name || !this.weights) return;
      const looks = this.looks(name, this.layer.value, this.head.value);
      this.drawBars(this.sourceTokens, looks.source);
      this.drawBars(this.targetTokens, looks.target);
    }

    drawBars(list, shares) {
      [...list.children].forEach((item, place) => {
        const share = shares[place] ?? 0;
        item.querySelector(".tf-live-bar > span").style.inlineSize = `${100 * share}%`;
        const text = shares[place] === null ? "—" : percent(share);
        item.querySelector(".tf-live-share").textContent = place in shares ? text : "";
      });
    }

    describe() {
      const { source, target } = this.looks(this.chosen, this.layer.value, this.head.value);
      const [where, place] = this.chosen.split(" ");
      const token = this.named(where, Number(place));
      if (where === "source") {
        const parts = ["Reading ", token, ", this head looks most at "];
        this.seen.replaceChildren(...parts, ...this.most("source", source), ".");
        return;
      }
      const parts = ["Writing ", token, ", this head looks most at "];
      parts.push(...this.most("source", source), " of what is read, and at ");
      parts.push(...this.most("target", target), " of what is written.");
      const probability = this.probabilities[place - 1];
      if (probability !== undefined) {
        parts.push(` Its probability was ${percent(probability)}.`);
      }
      this.seen.replaceChildren(...parts);
    }

    most(where, shares) {
      const best = shares.indexOf(Math.max(...shares));
      if (!shares[best]) return ["nothing"];
      return [this.named(where, best), ` (${percent(shares[best])})`];
    }

    named(where, place) {
      return make("b", {}, this.tokenText(...this.tokenAt(where, place)));
    }

    // A token with its language; the first that is read names the language asked for.
    tokenAt(where, place) {
      const { source, from, to } = this.asked;
      if (where === "target") return [this.tokens[place], to];
      return [source[place], place === 0 ? to : from];
    }

    drawAllHeads() {
      const isSource = this.chosen.startsWith("source");
      const caption = `At what is read${isSource ? "" : " (cross-attention)"}`;
      const tables = [this.headTable("source", caption)];
      if (!isSource) tables.push(this.headTable("target", "At what is written so far"));
      this.allHeads.replaceChildren(...tables);
    }

    headTable(where, caption) {
      const rows = [];
      let length = 0;
      for (const layer of this.layer.options) {
        for (const head of this.head.options) {
          const shares = this.looks(this.chosen, layer.value, head.value)[where];
          length = shares.length;
          const cells = shares.map((share) => {
            const textContent = share === null ? "—" : Math.round(100 * share);
            const cell = make("td", { textContent });
            cell.style.setProperty("--share", `${Math.round(40 * share)}%`);
            return cell;
          });
          const title = `Layer ${layer.text}, head ${head.text}`;
          rows.push(make("tr", {}, make("th", { scope: "row", textContent: title }), ...cells));
        }
      }
      const heads = Array.from({ length }, (_, place) =>
        make("th", { scope: "col" }, this.tokenText(...this.tokenAt(where, place))),
      );
      return make(
        "table",
        { className: "tf-live-heads" },
        make("caption", { textContent: `${caption}, in per cent` }),
        make("thead", {}, make("tr", {}, make("td"), ...heads)),
        make("tbody", {}, ...rows),
      );
    }

    // -- switches

    makeSwitches() {
      const names = {
        positions: "Positions",
        causal: "Causal mask",
        cross: "Cross-attention",
      };
      const ticks = Object.entries(names).map(([name, text]) => {
        const label = tick(text, "checkbox", { checked: true, name });
        label.addEventListener("change", () => {
          this.switches[name] = label.control.checked;
          this.changed();
        });
        return label;
      });
      this.names = names;
      this.all = button("Everything on", () => {
        this.switches = tf.intact();
        ticks.forEach((label) => (label.control.checked = true));
        this.drawHeads();
        this.changed();
      });
      return make(
        "div",
        { className: "tf-live-box" },
        group("Parts that are on: switch one off, and see what breaks", row(...ticks, this.all)),
        ...this.makeChecks(),
      );
    }

    // Three kinds of attention have a head of this layer and number.
    drawHeads() {
      const kinds = {
        encoder: "Encoder, to itself",
        decoder: "Decoder, to itself",
        cross: "Decoder, to what is read",
      };
      const [layer, head] = [this.layer, this.head].map((one) => one.value);
      const legend = `Head ${Number(head) + 1} of layer ${Number(layer) + 1} is on in`;
      this.headGroup.querySelector("legend").textContent = legend;
      this.headSwitches.replaceChildren(
        ...Object.entries(kinds).map(([kind, text]) => {
          const name = tf.headName(kind, layer, head);
          const off = this.switches.headsOff;
          const label = tick(text, "checkbox", { checked: !off.has(name) });
          label.addEventListener("change", () => {
            if (label.control.checked) off.delete(name);
            else off.add(name);
            this.changed();
          });
          return label;
        }),
      );
    }

    changes() {
      const parts = Object.keys(this.names).filter((name) => !this.switches[name]);
      const heads = [...this.switches.headsOff].map((name) => {
        const [kind, layer, head] = name.split(" ");
        return `${kind} head ${Number(head) + 1} of layer ${Number(layer) + 1}`;
      });
      return [...parts.map((name) => this.names[name].toLowerCase()), ...heads];
    }

    changed() {
      if (this.tokens) this.translate(false);
    }

    // -- many dates at once, and PyTorch's numbers

    makeChecks() {
      const status = make("p", { role: "status" });
      const guarded = (work) => async (event) => {
        event.target.disabled = true;
        try {
          await work((text) => (status.textContent = text));
        } catch (error) {
          status.textContent = `This cannot be done: ${error.message}.`;
        }
        event.target.disabled = false;
      };
      return [
        row(
          button("Measure on 100 unseen dates", guarded((say) => this.measure(say))),
          button("Compare with PyTorch", guarded((say) => this.compare(say))),
        ),
        status,
      ];
    }

    // Greedy, with the switches as they are; pairs of languages go round.
    async measure(say) {
      const codes = Object.keys(this.about.languages);
      const off = this.changes();
      const how = off.length ? `without ${off.join(", ")}` : "with everything on";
      const switches = { ...this.switches, headsOff: new Set(this.switches.headsOff) };
      let right = 0;
      for (let n = 0; n < 100; n++) {
        const iso = this.about.unseen[n % this.about.unseen.length];
        const from = this.about.languages[codes[n % codes.length]];
        const to = this.about.languages[codes[(3 * n + 1) % codes.length]];
        const style = n % 2 ? "long" : "full";
        const source = this.tokenizer.encode(`${to.name}: ${writeDate(iso, from, style)}`);
        const steps = tf.greedy(this.model, source, tf.SPECIAL, switches);
        const text = this.tokenizer.decode([...steps].map((step) => step.token));
        right += text === writeDate(iso, to, style);
        if (n % 10 === 9) {
          say(`${right} of ${n + 1} right, ${how}.`);
          await wait(0);
        }
      }
    }

    async compare(say) {
      const { bytes, about } = await loadFile("golden");
      const theirs = tf.readSafetensors(bytes);
      let [largest, count] = [0, 0];
      about.forEach(({ source, target }, n) => {
        const memory = this.model.encode(this.tokenizer.encode(source));
        const tokens = [tf.SPECIAL.start, ...this.tokenizer.encode(target)];
        const logits = this.model.decode(tokens, memory).flatMap((row) => [...row]);
        logits.forEach((logit, i) => {
          largest = Math.max(largest, Math.abs(logit - theirs[n].data[i]));
        });
        count += logits.length;
      });
      const digits = largest.toExponential(1);
      const what = `${count} logits of ${about.length} dates`;
      say(`${what}: none differs from PyTorch's by more than ${digits}.`);
    }
  }

  function row(...children) {
    return make("div", { className: "tf-live-row" }, ...children);
  }

  function numbered(count) {
    const select = make("select");
    for (let n = 0; n < count; n++) {
      select.append(make("option", { value: n, textContent: n + 1 }));
    }
    return select;
  }

  function setLanguage(node, code, { direction }) {
    node.lang = code;
    node.dir = direction;
    return node;
  }

  if (tf && root) offerToLoad();
})();
