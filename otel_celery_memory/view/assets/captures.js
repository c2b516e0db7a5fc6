"use strict";
// Captures: begun by a button, shown as a flame graph and a list, and two of them compared. What is in
// a capture is fetched when somebody looks at it; a saved page has it inside.

const captures = (() => {
  const { h, Component } = preact;
  const { size, count, plural, share, duration, moment, text, known } = format;
  const { code, head, scrolling } = parts;

  const ROW_PX = 25;
  const NARROWEST = 0.001; // of the width: what is narrower is not drawn
  const WITH_TEXT = 0.02;
  const COLOURS = 4;

  // ---- the flame graph

  function colourOf(box, byTask) {
    if (byTask && box.depth === 0) return "flame-task";
    let sum = 0;
    for (const each of box.name.split(":")[0]) sum = (sum * 31 + each.codePointAt(0)) % 65521;
    return `flame-${sum % COLOURS}`;
  }

  // Without the directory: a narrow box has no room for it.
  const shortName = (name) => text(name).replace(/^[^ ]*\/(?=[^/ ]*:\d)/, "");

  class Flame extends Component {
    state = { zoom: -1, at: 0, looked: null };

    shouldComponentUpdate(props, state) {
      return props.capture !== this.props.capture || state !== this.state;
    }

    get boxes() {
      return this.props.capture.flame;
    }

    parent(at) {
      const { depth } = this.boxes[at];
      for (let before = at - 1; before >= 0; before--)
        if (this.boxes[before].depth < depth) return before;
      return -1;
    }

    // What is in sight, with its place in parts of the width.
    drawn() {
      const { boxes } = this;
      const { zoom } = this.state;
      const tops = boxes.filter((each) => each.depth === 0);
      const [from, width] =
        zoom >= 0
          ? [boxes[zoom].start, boxes[zoom].size]
          : [0, tops.reduce((sum, each) => sum + each.size, 0)];
      const callers = new Set();
      for (let at = zoom; at >= 0; at = this.parent(at)) callers.add(at);
      let inside = zoom < 0;
      return boxes.flatMap((box, at) => {
        if (zoom >= 0 && box.depth <= boxes[zoom].depth) inside = at === zoom;
        if (callers.has(at)) return [{ box, at, left: 0, width: 1 }];
        const part = box.size / width;
        if (!inside || part < NARROWEST) return [];
        return [{ box, at, left: (box.start - from) / width, width: part }];
      });
    }

    says(box) {
      const of = share(box.size / this.boxes.reduce((sum, each) => sum + (each.depth ? 0 : each.size), 0));
      return `${text(box.name)}: ${size(box.size)} in ${plural(box.blocks, "block")}, ${of}`;
    }

    zoomTo(zoom) {
      this.setState({ zoom, at: Math.max(zoom, 0) });
    }

    press(event, drawn) {
      const { at } = this.state;
      const shown = drawn.map((each) => each.at);
      const row = shown.filter((each) => this.boxes[each].depth === this.boxes[at].depth);
      const deeper = shown[shown.indexOf(at) + 1];
      const next = {
        ArrowUp: () => this.parent(at),
        ArrowDown: () => (deeper !== undefined && this.parent(deeper) === at ? deeper : -1),
        ArrowLeft: () => row[row.indexOf(at) - 1] ?? -1,
        ArrowRight: () => row[row.indexOf(at) + 1] ?? -1,
        Home: () => shown[0],
      }[event.key];
      if (event.key === "Escape") this.zoomTo(-1);
      else if (next) this.base.querySelector(`[data-box="${next()}"]`)?.focus();
      else return;
      event.preventDefault();
    }

    render({ capture }, { zoom, at, looked }) {
      const drawn = this.drawn();
      const rows = Math.max(...drawn.map((each) => each.box.depth)) + 1;
      return h(
        "div",
        null,
        h(
          "div",
          {
            class: "flame",
            role: "group",
            "aria-label": "Flame graph: arrow keys go to callers and callees, Enter enlarges one, Escape shows all",
            style: { height: `${rows * ROW_PX}px` },
            onKeyDown: (event) => this.press(event, drawn),
            onMouseLeave: () => this.setState({ looked: null }),
          },
          drawn.map((each) =>
            h(
              "button",
              {
                type: "button",
                key: each.at,
                "data-box": each.at,
                class: colourOf(each.box, capture.by_task),
                tabIndex: each.at === at ? 0 : -1,
                "aria-label": this.says(each.box),
                style: {
                  left: `${each.left * 100}%`,
                  width: `${each.width * 100}%`,
                  top: `${each.box.depth * ROW_PX}px`,
                },
                onClick: () => this.zoomTo(each.at === zoom ? -1 : each.at),
                onFocus: () => this.setState({ at: each.at, looked: null }),
                onMouseEnter: () => this.setState({ looked: each.at }),
              },
              each.width < WITH_TEXT ? "" : shortName(each.box.name),
            ),
          ),
        ),
        h("p", { class: "quiet flame-said" }, this.says(this.boxes[looked ?? at])),
        zoom >= 0 ? h("button", { type: "button", onClick: () => this.zoomTo(-1) }, "Show all of it") : null,
      );
    }
  }

  // ---- one capture

  // Columns: {title, cell, number}; the first is the head of its row.
  function rowsOf(label, columns, rows) {
    const numbers = columns.flatMap((each, at) => (each.number ? [at] : []));
    return scrolling(
      label,
      h(
        "table",
        { class: "stacked" },
        head(columns.map((each) => each.title), numbers),
        h(
          "tbody",
          null,
          rows.map((row, at) =>
            h(
              "tr",
              { key: at },
              columns.map((column, number) =>
                h(
                  number ? "td" : "th",
                  {
                    key: column.title,
                    class: column.number ? "number" : null,
                    ...(number ? { "data-label": column.title } : { scope: "row" }),
                  },
                  column.cell(row),
                ),
              ),
            ),
          ),
        ),
      ),
    );
  }

  const PLACE = {
    title: "place",
    cell: (row) => [code(row.place), row.task ? h("span", { class: "quiet below" }, text(row.task)) : null],
  };
  const left = (places, shown) => (places > shown ? `The first ${shown} of ${count(places)} places.` : null);

  function content(capture, now) {
    if (!capture) return h("p", { class: "quiet" }, "Reading …");
    if (capture.error) return h("p", { class: "note" }, `The capture ${text(capture.error)}.`);
    const columns = [
      PLACE,
      { title: "size", number: true, cell: (row) => size(row.size) },
      { title: "blocks", number: true, cell: (row) => count(row.blocks) },
    ];
    if (capture.runs !== null)
      columns.push({ title: "a run", number: true, cell: (row) => size(row.a_run) });
    return [
      h(
        "p",
        { class: "quiet" },
        `${size(capture.size)} in ${plural(capture.blocks, "block")}, ${text(capture.words)}; taken ` +
          `${moment(capture.taken, now)} over ${duration(capture.duration)}` +
          (capture.runs === null ? "." : `, ${plural(capture.runs, "traced run")}.`),
        capture.other ? ` ${size(capture.other)} more are at sites beyond its bound.` : null,
      ),
      capture.flame.length
        ? h(Flame, { capture, key: "flame" })
        : h(
            "p",
            { class: "quiet" },
            capture.frames > 1
              ? "No site of it has a stack."
              : ["It has the line of each site alone. With ", code("OTEL_CELERY_MEMORY_FRAMES=10"), " a worker records stacks."],
          ),
      capture.top.length ? rowsOf("Places of the capture", columns, capture.top) : h("p", null, "It has no site."),
      h("p", { class: "quiet" }, left(capture.places, capture.top.length)),
    ];
  }

  // ---- two captures

  function comparison(found) {
    if (!found) return h("p", { class: "quiet" }, "Comparing …");
    if (found.error) return h("p", { class: "note" }, `They are not compared: ${text(found.error)}.`);
    const signed = (number) => (known(number) && number > 0 ? `+${size(number)}` : size(number));
    const columns = [
      PLACE,
      {
        title: found.by_run ? "change a run" : "change",
        number: true,
        cell: (row) => h("span", { class: row.change > 0 ? "grew" : null }, signed(row.change)),
      },
      { title: "before", number: true, cell: (row) => size(row.before) },
      { title: "after", number: true, cell: (row) => size(row.after) },
    ];
    return [
      found.notes.map((each) => h("p", { class: "note", key: each }, text(each))),
      found.top.length
        ? [
            known(found.size) ? h("p", { class: "quiet" }, `${signed(found.size)} in all.`) : null,
            rowsOf("What changed between the captures", columns, found.top),
          ]
        : h("p", null, "Nothing changed between them."),
      h("p", { class: "quiet" }, left(found.places, found.top.length)),
    ];
  }

  async function fetched(path) {
    try {
      return await (await fetch(path)).json();
    } catch {
      return { error: "cannot be had: the view has ended or cannot be reached" };
    }
  }

  const NOT_SAVED = { error: "is not in this saved page" };

  class OfWorker extends Component {
    state = { said: "", shown: null, capture: null, before: null, after: null, pair: null, found: null };

    componentDidUpdate() {
      // The capture that the button began is shown once it is there.
      const done = this.before && this.files().find((row) => !this.before.has(row.key));
      if (!done) return;
      this.before = null;
      this.setState({ said: "" });
      this.show(done.key);
    }

    files() {
      return this.props.worker.captures.filter((row) => row.key);
    }

    async ask() {
      const before = new Set(this.files().map((row) => row.key));
      this.setState({ said: "Asking …" });
      try {
        const headers = { "X-Worker": this.props.worker.node };
        const answer = await fetch("/captures", { method: "POST", headers });
        const { error } = await answer.json();
        if (!error) this.before = before;
        this.setState({
          said: error ? `Refused: ${text(error)}` : "Begun: the next 10 runs of each process are traced.",
        });
      } catch {
        this.setState({ said: "The view or the name of the worker cannot be used." });
      }
    }

    async show(key) {
      const { snapshot } = this.props;
      if (key === this.state.shown) {
        this.wanted = null;
        this.setState({ shown: null, capture: null });
        return;
      }
      // The state changes when the page is next drawn, and the answer may be there before.
      this.wanted = key;
      this.setState({ shown: key, capture: null });
      const capture = snapshot.live ? await fetched(`/captures/${key}`) : (snapshot.captured[key] ?? NOT_SAVED);
      if (this.wanted === key) this.setState({ capture });
    }

    async compare(before, after) {
      const { snapshot } = this.props;
      const pair = `${before}/${after}`;
      this.wantedPair = pair;
      this.setState({ pair, found: null });
      const found = snapshot.live ? await fetched(`/captures/${pair}`) : (snapshot.compared[pair] ?? NOT_SAVED);
      if (this.wantedPair === pair) this.setState({ found });
    }

    name(row) {
      const { now } = this.props.snapshot;
      const time = known(row.time) ? ` of ${moment(row.time, now)}` : "";
      // Its number is known where the worker itself was asked.
      return known(row.number) ? `capture ${row.number}${time}` : `capture${time}`;
    }

    table(worker, shown) {
      const columns = [
        { title: "capture", cell: (row) => this.name(row) },
        { title: "state", cell: (row) => text(row.state) },
        { title: "kind", cell: (row) => text(row.kind ?? "–") },
        { title: "sites", number: true, cell: (row) => count(row.sites) },
        { title: "runs", number: true, cell: (row) => count(row.runs || null) },
        { title: "file", cell: (row) => code(row.error || row.file || "–") },
        {
          title: "content",
          cell: (row) =>
            row.key
              ? h(
                  "button",
                  {
                    type: "button",
                    "aria-expanded": String(row.key === shown),
                    "aria-label": `${row.key === shown ? "Hide" : "Show"} ${this.name(row)}`,
                    onClick: () => this.show(row.key),
                  },
                  row.key === shown ? "Hide" : "Show",
                )
              : "–",
        },
      ];
      return rowsOf(`Captures of ${text(worker.node)}`, columns, worker.captures);
    }

    choice(label, value, set) {
      return h(
        "label",
        null,
        label,
        h(
          "select",
          { value, onChange: (event) => set(event.target.value) },
          this.files().map((row) => h("option", { value: row.key, key: row.key }, this.name(row))),
        ),
      );
    }

    pairs(files) {
      const keys = files.map((row) => row.key);
      const chosen = (key, otherwise) => (keys.includes(key) ? key : otherwise);
      const [one, two] = [chosen(this.state.before, keys[1]), chosen(this.state.after, keys[0])];
      // Whichever way they were chosen, the older one is the one before; the newest is listed first.
      const [after, before] = [one, two].sort((a, b) => keys.indexOf(a) - keys.indexOf(b));
      const current = this.state.pair === `${before}/${after}`;
      return h(
        "div",
        { class: "captured" },
        h("h4", null, "What changed between two of them"),
        h(
          "div",
          { class: "asking" },
          this.choice("from", one, (key) => this.setState({ before: key })),
          this.choice("to", two, (key) => this.setState({ after: key })),
          h(
            "button",
            { type: "button", disabled: one === two, onClick: () => this.compare(before, after) },
            "Compare",
          ),
        ),
        h("div", null, current ? comparison(this.state.found) : null),
      );
    }

    render({ worker, snapshot }, { said, shown, capture }) {
      const asks = snapshot.app && snapshot.live;
      const files = this.files();
      const row = files.find((each) => each.key === shown);
      const lost = worker.captures.some(
        (each) => each.state === "complete" && each.kind !== "census" && !each.file && !each.error,
      );
      return h(
        "article",
        { class: "card" },
        h("header", null, h("h3", null, code(worker.node || "a worker without a name"))),
        asks
          ? h(
              "div",
              { class: "asking" },
              h(
                "button",
                { type: "button", disabled: !worker.answers, onClick: () => this.ask() },
                "Capture the next 10 runs",
              ),
              h(
                "span",
                { class: "quiet", role: "status" },
                worker.answers
                  ? said
                  : "It does not answer: is remote control on, and is this the app's broker?",
              ),
            )
          : null,
        worker.captures.length ? this.table(worker, shown) : null,
        lost
          ? h(
              "p",
              { class: "quiet" },
              "What a capture has found is kept where the worker has ",
              code("OTEL_CELERY_MEMORY_CAPTURE_DIRECTORY"),
              " alone.",
            )
          : null,
        row
          ? h("div", { class: "captured", key: shown }, h("h4", null, this.name(row)), content(capture, snapshot.now))
          : null,
        files.length > 1 ? this.pairs(files) : null,
      );
    }
  }

  function all(snapshot) {
    const asks = snapshot.app && snapshot.live;
    const shown = snapshot.workers.filter((each) => asks || each.captures.length);
    if (shown.length)
      return shown.map((worker) =>
        h(OfWorker, { worker, snapshot, key: `${worker.service}/${worker.node}/${worker.host}` }),
      );
    return h(
      "p",
      { class: "quiet" },
      "A capture has all lines whose memory some runs left behind. One is begun by ",
      code("celery -A yourapp control memory_capture 10"),
      ", or by a button here with ",
      code("otel-celery-memory view -A yourapp"),
      ".",
    );
  }

  return { all };
})();
