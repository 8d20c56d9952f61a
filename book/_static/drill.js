/* The interview drill: asks the questions of its page one by one, in random order, and
   keeps in this browser how you did. Without it the page is a list with folded answers. */
(() => {
  "use strict";

  const STORE = "tf-drill";
  // What you can say of an answer: its key, its words, and the icon that goes with it.
  const SCORES = {
    not: { key: "1", word: "Not yet", icon: "tf-fails" },
    half: { key: "2", word: "Half", icon: "tf-depends" },
    knew: { key: "3", word: "Knew it", icon: "tf-holds" },
  };
  const SECONDS = { "tf-short": 30, "tf-long": 120 };
  const EVERYTHING = "Everything";

  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const button = (text, act, props = {}) => {
    const node = make("button", { type: "button", className: "tf-button", ...props });
    node.textContent = text;
    node.addEventListener("click", act);
    return node;
  };

  const place = document.querySelector(".tf-drill");
  const items = all("details.tf-item");
  const chapters = [...new Set(items.map((item) => item.closest("section")))];
  // Taken down once: the item on the card is not in its chapter's section.
  const titles = new Map(
    items.map((item) => [
      item,
      item.closest("section").querySelector("h2").firstChild.textContent,
    ]),
  );
  const kindOf = (item) => item.querySelector(".tf-kind").textContent;
  // A whiteboard shows what stands on it, and folds the formula once more.
  const answerOf = (item) => item.querySelector("details") ?? item;

  // ---- progress: { id of a question: one of SCORES }, of questions that are there
  let kept = true;
  let scores = {};

  function load() {
    try {
      const stored = Object.entries(JSON.parse(localStorage.getItem(STORE)) ?? {});
      const known = stored.filter(([id, score]) => {
        return score in SCORES && items.some((item) => item.id === id);
      });
      return Object.fromEntries(known);
    } catch {
      return {};
    }
  }

  function save() {
    try {
      localStorage.setItem(STORE, JSON.stringify(scores));
      kept = true;
    } catch {
      kept = false;
    }
    items.forEach(markScore);
    describe();
  }

  function markScore(item) {
    const summary = item.querySelector("summary");
    summary.querySelector(".tf-mark")?.remove();
    const score = SCORES[scores[item.id]];
    if (!score) return;
    const className = `tf-mark ${score.icon}`;
    summary.append(make("span", { className, textContent: score.word }));
  }

  function clear() {
    if (!confirm("Forget how you did, on all questions?")) return;
    scores = {};
    save();
  }

  // ---- the form: what to ask
  const select = (...words) =>
    make("select", {}, ...words.map((text) => make("option", { textContent: text })));
  const chapterField = select("All chapters", ...new Set(titles.values()));
  const kindField = select("All kinds", ...new Set(items.map(kindOf)));
  const askField = select("Not known yet", EVERYTHING);
  const status = make("p", { role: "status" });
  const start = button("Start", () => begin(chosen()), { className: "tf-button tf-main" });
  const form = make(
    "form",
    { className: "tf-filter" },
    field("Chapter", chapterField),
    field("Kind", kindField),
    field("Ask", askField),
    make("div", { className: "tf-row" }, start, button("Clear my progress", clear)),
    status,
  );

  function field(text, control) {
    control.id = `tf-drill-${text.toLowerCase()}`;
    const label = make("label", { className: "tf-field", textContent: text });
    label.htmlFor = control.id;
    return make("div", {}, label, control);
  }

  function chosen() {
    const within = (control, value) => !control.selectedIndex || control.value === value;
    return items.filter(
      (item) =>
        within(chapterField, titles.get(item)) &&
        within(kindField, kindOf(item)) &&
        (askField.value === EVERYTHING || scores[item.id] !== "knew"),
    );
  }

  function describe(first = "") {
    const count = (score) => Object.values(scores).filter((one) => one === score).length;
    const left = chosen().length;
    const next = left ? `${left} to ask, in random order.` : "Nothing to ask here.";
    const done = `Of all ${items.length} you knew ${count("knew")}, half ${count("half")}, not yet ${count("not")}.`;
    const lost = kept ? "" : "This browser keeps nothing: progress ends with this page.";
    status.textContent = [first, next, done, lost].filter(Boolean).join(" ");
  }

  // ---- a round: one card after another
  let round = [];
  let at = 0;
  let home = null; // where the item of the card came from
  let tally = {};

  const where = make("p", { className: "tf-kicker", role: "status" });
  const slot = make("div");
  const time = make("span", { className: "tf-time" });
  const clock = button("Start the clock", startClock);
  const show = button("Show the answer", open, { className: "tf-button tf-main" });
  const scoring = make("div", { className: "tf-row" });
  for (const [score, { key, word }] of Object.entries(SCORES)) {
    scoring.append(button(`${key} · ${word}`, () => rate(score)));
  }
  const keys = make("p", {
    className: "tf-keys",
    textContent:
      "Keys, while the focus is on the card: Space opens the answer; then 1, 2 and 3 say how you did. " +
      "S skips, C starts the clock, Esc ends the round.",
  });
  const card = make(
    "section",
    { className: "tf-card", hidden: true, tabIndex: -1 },
    where,
    slot,
    make("div", { className: "tf-row" }, show, clock, time),
    scoring,
    make("div", { className: "tf-row" }, button("Skip", next), button("End the round", end)),
    keys,
  );
  card.setAttribute("aria-label", "The question");

  function begin(questions) {
    if (!questions.length) {
      describe();
      return;
    }
    round = shuffle(questions);
    tally = {};
    at = -1;
    showList(false);
    next();
  }

  function shuffle(list) {
    const shuffled = [...list];
    for (let last = shuffled.length - 1; last > 0; last -= 1) {
      const other = Math.floor(Math.random() * (last + 1));
      [shuffled[last], shuffled[other]] = [shuffled[other], shuffled[last]];
    }
    return shuffled;
  }

  function next() {
    putBack();
    at += 1;
    if (at >= round.length) {
      end();
      return;
    }
    const item = round[at];
    const answer = answerOf(item);
    where.textContent = `Question ${at + 1} of ${round.length} · ${titles.get(item)}`;
    home = document.createComment("");
    item.replaceWith(home);
    slot.append(item);
    item.open = item !== answer;
    answer.open = false;
    showScoring();
    clock.hidden = !secondsFor(item);
    stopClock();
    if (card.getBoundingClientRect().top < 0) card.scrollIntoView();
    answer.querySelector("summary").focus({ preventScroll: true });
  }

  function open() {
    const answer = answerOf(round[at]);
    answer.open = true;
    answer.querySelector("summary").focus();
  }

  function showScoring() {
    const answered = answerOf(round[at]).open;
    scoring.hidden = !answered;
    show.hidden = answered;
  }

  function putBack() {
    if (!home) return;
    const item = round[at];
    item.open = false;
    answerOf(item).open = false;
    home.replaceWith(item);
    home = null;
  }

  function rate(score) {
    scores[round[at].id] = score;
    tally[score] = (tally[score] ?? 0) + 1;
    save();
    next();
  }

  function end() {
    putBack();
    stopClock();
    showList(true);
    const counted = Object.entries(SCORES).filter(([score]) => tally[score]);
    const words = counted.map(([score, { word }]) => `${word}: ${tally[score]}`);
    describe(words.length ? `Round over. ${words.join(", ")}.` : "");
    start.focus();
  }

  function showList(visible) {
    card.hidden = visible;
    form.hidden = !visible;
    for (const section of chapters) {
      section.hidden = !visible;
      all(`.page-toc a[href="#${section.id}"]`).forEach((link) => {
        link.parentElement.hidden = !visible;
      });
    }
  }

  // ---- the clock of an answer that has a length
  let ticking = 0;

  function secondsFor(item) {
    const name = Object.keys(SECONDS).find((one) => item.classList.contains(one));
    return SECONDS[name] ?? 0;
  }

  function startClock() {
    stopClock();
    const until = Date.now() + secondsFor(round[at]) * 1000;
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      time.textContent = left > 0 ? `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}` : "Time.";
      if (left > 0) return;
      clearInterval(ticking);
      where.textContent += " · time is over";
    };
    ticking = setInterval(tick, 200);
    tick();
  }

  function stopClock() {
    clearInterval(ticking);
    time.textContent = "";
  }

  function onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    const score = Object.keys(SCORES).find((name) => SCORES[name].key === key);
    if (score && answerOf(round[at]).open) rate(score);
    else if (key === "s") next();
    else if (key === "c" && !clock.hidden) startClock();
    else if (key === "escape") end();
    else return;
    event.preventDefault();
  }

  // A link to a question shows its answer.
  function openTarget() {
    const item = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (item && items.includes(item)) item.open = true;
  }

  card.addEventListener("keydown", onKey);
  slot.addEventListener("toggle", () => home && showScoring(), true);
  form.addEventListener("change", () => describe());
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", openTarget);
  place.append(form, card);
  scores = load();
  items.forEach(markScore);
  describe();
  openTarget();
})();
