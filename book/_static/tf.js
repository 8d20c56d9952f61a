/* Upgrades of pages that already work without it: judge before you read the verdicts,
   a quiz that answers, a ledger that filters, and keyboard access to what scrolls. */
(() => {
  "use strict";

  const make = (tag, props = {}, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // What people say: one button that hides the verdicts of the list below it.
  function addHideButton(list) {
    const button = make("button", {
      type: "button",
      className: "tf-button",
      textContent: "Hide the verdicts and judge first",
    });
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      const hidden = list.classList.toggle("tf-hide");
      button.setAttribute("aria-pressed", String(hidden));
    });
    list.before(button);
  }

  // Quiz: the list becomes radio buttons, the answer opens when it was found.
  function upgradeQuiz(quiz, index) {
    const question = quiz.querySelector(".tf-q");
    const list = quiz.querySelector("ol");
    const answer = quiz.querySelector("details");
    const options = [...list.children].map((item, n) => makeOption(item, n + 1, index));
    const status = make("span", { role: "status" });
    const form = make(
      "form",
      {},
      make("fieldset", {}, make("legend", {}, ...question.childNodes), ...options),
      make(
        "div",
        { className: "tf-row" },
        make("button", { className: "tf-button tf-main", textContent: "Check" }),
        status,
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      status.textContent = judge(options, quiz.dataset.key, answer);
    });
    form.addEventListener("change", () => {
      options.forEach(clearMark);
      status.textContent = "";
    });
    question.remove();
    list.replaceWith(form);
  }

  function makeOption(item, number, quiz) {
    const input = make("input", { type: "radio", name: `tf-quiz-${quiz}`, value: number });
    const text = make("span", {}, ...item.childNodes);
    return make("label", { className: "tf-opt" }, input, text);
  }

  function judge(options, key, answer) {
    options.forEach(clearMark);
    const chosen = options.find((option) => option.control.checked);
    if (!chosen) {
      options[0].control.focus();
      return "Choose an answer first.";
    }
    const right = chosen.control.value === key;
    chosen.classList.add(right ? "tf-right" : "tf-wrong");
    const word = right ? "✓ Right" : "✗ Not this one";
    chosen.append(make("span", { className: "tf-word", textContent: word }));
    if (!right) return "Not this one. Try again, or open the answer.";
    answer.open = true;
    return "Right. The answer below says why.";
  }

  function clearMark(option) {
    option.classList.remove("tf-right", "tf-wrong");
    option.querySelector(".tf-word")?.remove();
  }

  // Rows become cards: in the ledger always, in a chapter's table of lesser claims where
  // it is narrow. Another `display` may drop the roles of a table, so they are written
  // out.
  function stack(table, style) {
    table.classList.add(style);
    table.setAttribute("role", "table");
    const roles = { "thead, tbody": "rowgroup", tr: "row", th: "columnheader", td: "cell" };
    for (const [selector, role] of Object.entries(roles)) {
      all(selector, table).forEach((node) => node.setAttribute("role", role));
    }
  }

  // Ledger: a form that shows the rows that fit.
  const VERDICTS = { holds: "Holds", depends: "Depends", fails: "Fails" };

  function upgradeLedger(tables) {
    tables.forEach((table) => stack(table, "tf-stack"));
    const rows = tables.flatMap((table) => all("tbody tr", table).map(describeRow));
    const { form, fields } = makeFilter(rows);
    const update = () => {
      filterRows(rows, tables, fields);
      writeAddress(fields);
    };
    form.addEventListener("input", update);
    form.addEventListener("submit", (event) => event.preventDefault());
    tables[0].closest("section").before(form);
    readAddress(fields);
    const showTarget = () => {
      const target = location.hash && document.getElementById(location.hash.slice(1));
      if (!target) return;
      if (target.closest("[hidden]")) {
        form.reset();
        update();
      }
      target.scrollIntoView();
    };
    addEventListener("hashchange", showTarget);
    filterRows(rows, tables, fields);
    showTarget();
  }

  // The address holds the filter, as in ?chapter=3&verdict=depends,fails&find=cache, so
  // that it can be sent; what is not in it, or makes no sense, is not filtered.
  function readAddress(fields) {
    const asked = new URLSearchParams(location.search);
    for (const [name, control] of Object.entries(fields.single)) {
      const value = asked.get(name) ?? "";
      const known = !control.options || all("option", control).some((one) => one.value === value);
      if (known) control.value = value;
    }
    const named = (asked.get("verdict") ?? "").split(",");
    const verdicts = named.filter((one) => one in VERDICTS || one === "none");
    if (!verdicts.length) return;
    for (const [verdict, box] of Object.entries(fields.boxes)) {
      box.checked = verdicts.includes(verdict);
    }
  }

  function writeAddress(fields) {
    const asked = new URLSearchParams();
    for (const [name, control] of Object.entries(fields.single)) {
      if (control.value) asked.set(name, control.value);
    }
    const names = Object.keys(VERDICTS);
    const checked = names.filter((verdict) => fields.boxes[verdict].checked);
    if (checked.length < names.length) asked.set("verdict", checked.join(",") || "none");
    const query = String(asked).replaceAll("%2C", ",");
    const address = location.pathname + (query && `?${query}`) + location.hash;
    try {
      history.replaceState(history.state, "", address);
    } catch {
      // Some browsers refuse it for files, or when it comes too often: the filter works.
    }
  }

  function describeRow(row) {
    const mark = row.querySelector(".tf-mark");
    return {
      row,
      verdict: Object.keys(VERDICTS).find((name) => mark.classList.contains(`tf-${name}`)),
      chapter: chapterOf(row),
      evidence: row.cells[3].textContent.trim().split(/\W/, 1)[0].toLowerCase(),
      text: row.textContent.toLowerCase(),
    };
  }

  const headingOf = (row) => row.closest("section").querySelector("h2").firstChild.textContent;
  const chapterOf = (row) => headingOf(row).split(" ", 1)[0]; // 3 of "3 · Attention"

  function makeFilter(rows) {
    const find = make("input", { type: "search", id: "tf-find" });
    const headings = new Map(rows.map(({ row, chapter }) => [chapter, headingOf(row)]));
    const chapter = choice("tf-chapter", ["", "All chapters"], ...headings);
    const kinds = ["Measured", "Cited"].map((word) => [word.toLowerCase(), word]);
    const evidence = choice("tf-evidence", ["", "Any evidence"], ...kinds);
    const boxes = {};
    const labels = Object.entries(VERDICTS).map(([verdict, word]) => {
      boxes[verdict] = make("input", { type: "checkbox", defaultChecked: true });
      const mark = make("span", { className: `tf-mark tf-${verdict}`, textContent: word });
      return make("label", {}, boxes[verdict], mark);
    });
    const status = make("p", { role: "status" });
    const form = make(
      "form",
      { className: "tf-filter", role: "search" },
      field("Find in the ledger", find),
      field("Chapter", chapter),
      field("Evidence", evidence),
      make("fieldset", {}, make("legend", { textContent: "Show" }), ...labels),
      status,
    );
    form.setAttribute("aria-label", "Filter the ledger");
    return { form, fields: { single: { find, chapter, evidence }, boxes, status } };
  }

  function choice(id, ...options) {
    const made = options.map(([value, text]) => make("option", { value, textContent: text }));
    return make("select", { id }, ...made);
  }

  function field(text, control) {
    const label = make("label", { className: "tf-field", textContent: text });
    label.htmlFor = control.id;
    return make("div", {}, label, control);
  }

  function filterRows(rows, tables, fields) {
    const { find, chapter, evidence } = fields.single;
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const one of rows) {
      const fits =
        fields.boxes[one.verdict].checked &&
        (!chapter.value || chapter.value === one.chapter) &&
        (!evidence.value || evidence.value === one.evidence) &&
        words.every((word) => one.text.includes(word));
      one.row.hidden = !fits;
      shown += fits;
    }
    for (const table of tables) {
      const section = table.closest("section");
      section.hidden = all("tbody tr", table).every((row) => row.hidden);
      all(`.page-toc a[href="#${section.id}"]`).forEach((link) => {
        link.parentElement.hidden = section.hidden;
      });
    }
    fields.status.textContent = `${shown} of ${rows.length} sentences`;
  }

  // What scrolls sideways must be reachable by keyboard, and only then.
  function markScrollable() {
    const scrollable =
      ".bd-article :is(pre, details, mjx-container[display], .text_html, .pst-scrollable-table-container)";
    for (const node of all(scrollable)) {
      if (node.scrollWidth > node.clientWidth + 1) node.tabIndex = 0;
      else node.removeAttribute("tabindex");
    }
  }

  all("ol.tf-sentences").forEach(addHideButton);
  all(".tf-quiz").forEach(upgradeQuiz);
  all(".tf-claims table").forEach((table) => stack(table, "tf-narrow"));
  const ledger = all("table.tf-ledger");
  if (ledger.length) upgradeLedger(ledger);
  addEventListener("load", markScrollable);
  addEventListener("resize", markScrollable);
  document.addEventListener("toggle", markScrollable, true);
  window.MathJax?.startup?.promise.then(markScrollable);
})();
