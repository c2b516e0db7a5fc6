"use strict";
// The parts of the page, each a function or class that draws some of the snapshot. Preact sets text
// and attributes: nothing here makes markup of a text, and the page's policy would refuse it.

const parts = (() => {
  const { h, Component } = preact;
  const { size, count, plural, share, duration, clock, moment, text, known } = format;

  const ROWS_FIRST = 25;
  const MANY_MESSAGES = 1000;
  const MONTH_S = 30 * 86_400;
  const KINDS_OF_LEAK = {
    python: "Python objects",
    native: "native memory: malloc grows, the interpreter's blocks do not",
    mapping: "other mappings",
    fragmentation: "fragmentation: what is freed is not given back",
    file_descriptors: "file descriptors",
    threads: "threads",
    processes: "processes that its tasks started",
    copy_on_write: "memory shared at the fork and copied since",
    messages: "messages that the main process holds",
    garbage: "garbage that waits for the collector",
  };
  const COUNTED = {
    file_descriptors: ["descriptor", "descriptors"],
    threads: ["thread", "threads"],
    processes: ["process", "processes"],
    messages: ["message", "messages"],
  };
  const PLACES = {
    receiver: "a receiver of Celery's signals",
    idle: "code outside of tasks",
    main: "the main process",
    descendant: "processes that tasks started",
  };
  const STATES = { leaking: "leaking", suspected: "suspected", ended: "ended" };
  const LIMITS = {
    cgroup: "cgroup",
    cgroup_high: "cgroup, high",
    cgroup_swap: "cgroup, swap",
    rlimit_as: "address space",
    rlimit_data: "data segment",
    max_memory_per_child: "max_memory_per_child",
    host: "machine",
  };
  const HAPPENINGS = {
    lost: "lost",
    pressure: "pressure",
    recycled: "recycled",
    capture: "capture",
    census: "census",
    descendants: "left behind",
    leak: "verdict",
    worker: "worker",
  };
  const RECYCLED = {
    max_tasks: "after max_tasks_per_child",
    max_memory: "at max_memory_per_child",
    autoscale: "as the pool shrank",
  };
  const WINDOWS = {
    complete: "left behind by several runs in a row",
    first_run: "alive after a single run",
    process: "growth of all processes since they were warm",
    partial: "alive when a part of a run had been traced",
  };

  const code = (value) => h("code", null, text(value));
  const badge = (kind, label) => h("span", { class: `badge badge-${kind}` }, label);
  const lookup = (words, key) => (Object.hasOwn(words, key) ? words[key] : text(key));

  // ---- plots

  function colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  class Plot extends Component {
    // lines: [{label, times, values}], all in bytes; a limit is a level.
    componentDidMount() {
      this.observer = new ResizeObserver(() => this.fit());
      this.observer.observe(this.base);
      this.draw();
    }

    componentWillUnmount() {
      this.observer.disconnect();
      this.plot?.destroy();
    }

    shouldComponentUpdate() {
      return true;
    }

    componentDidUpdate(before) {
      const same = (props) => JSON.stringify([props.lines.map((each) => each.label), props.theme]);
      if (!this.plot || same(before) !== same(this.props)) this.draw();
      else this.plot.setData(this.data());
    }

    data() {
      const lines = this.props.lines.map((each) => [each.times, each.values]);
      return uPlot.join(lines);
    }

    fit() {
      const width = this.base.clientWidth;
      if (this.plot && width && width !== this.plot.width)
        this.plot.setSize({ width, height: this.props.height });
    }

    draw() {
      this.plot?.destroy();
      this.plot = null;
      const { lines, height, fill } = this.props;
      const axis = {
        stroke: colour("--quiet"),
        grid: { stroke: colour("--rule"), width: 1 },
        ticks: { stroke: colour("--rule"), width: 1, size: 4 },
        font: "12px system-ui, sans-serif",
      };
      const options = {
        width: this.base.clientWidth || 300,
        height,
        legend: { show: false },
        cursor: { show: false },
        scales: { y: { range: (_, low, high) => [Math.min(low, 0), high > 0 ? high * 1.08 : 1] } },
        axes: [
          { ...axis, size: 30, space: 80, values: (_, ticks) => ticks.map((each) => clock(each)) },
          {
            ...axis,
            size: 72,
            incrs: [1, 2, 4, 8, 16, 32, 64, 128, 256, 512].flatMap((each) =>
              [1, 2 ** 10, 2 ** 20, 2 ** 30, 2 ** 40].map((unit) => each * unit),
            ).sort((a, b) => a - b),
            values: (_, ticks) => ticks.map((each) => (each ? size(each).replace(".0 ", " ") : "0")),
          },
        ],
        series: [
          {},
          ...lines.map((_, number) => {
            const stroke = colour(this.props.stroke ?? `--line-${number % 8}`);
            return {
              stroke,
              width: 2,
              spanGaps: true,
              fill: fill ? `${stroke}22` : undefined,
              points: { show: lines[number].times.length < 3 },
            };
          }),
        ],
      };
      this.plot = new uPlot(options, this.data(), this.base);
    }

    render({ label, height }) {
      return h("div", { class: "plot", role: "img", "aria-label": label, style: { height } });
    }
  }

  function legend(lines) {
    return h(
      "ul",
      { class: "legend" },
      lines.map((each, number) =>
        h("li", { key: each.label }, h("span", { class: `key key-${number % 8}` }), each.label),
      ),
    );
  }

  function sparkline(over, label) {
    if (!over || over.values.length < 2) return h("span", { class: "spark" });
    const [width, height] = [96, 24];
    const low = Math.min(...over.values);
    const high = Math.max(...over.values);
    // What changes by a few per cent is all but flat.
    const range = Math.max(high - low, high / 5) || 1;
    const [from, to] = [over.times[0], over.times[over.times.length - 1]];
    const x = (time) => ((time - from) / (to - from || 1)) * width;
    const y = (value) => height - 2 - ((value - low) / range) * (height - 4);
    const points = over.values.map((value, at) => `${x(over.times[at]).toFixed(1)},${y(value).toFixed(1)}`);
    return h(
      "svg",
      {
        class: "spark",
        viewBox: `0 0 ${width} ${height}`,
        role: "img",
        "aria-label": `${label} from ${size(over.values[0])} to ${size(over.values[over.values.length - 1])}`,
        preserveAspectRatio: "none",
      },
      h("polyline", { points: points.join(" ") }),
    );
  }

  // A full limit is a danger; a large share of something is none.
  function bar(part, label, isLimit = false) {
    // No finer than can be seen: a change of the last digit would draw each bar anew.
    const width = `${(Math.min(Math.max(part, 0), 1) * 100).toFixed(1)}%`;
    const level = isLimit && part >= 0.9 ? "high" : isLimit && part >= 0.7 ? "middle" : "low";
    return h(
      "span",
      { class: "bar", role: "img", "aria-label": label },
      h("span", { class: `bar-part bar-${level}`, style: { width } }),
    );
  }

  // ---- source

  function source({ source: found, line, path }) {
    if (!found) return null;
    return h(
      "div",
      { class: "source", tabIndex: 0, role: "region", "aria-label": `Source of ${text(path)}` },
      found.lines.map((content, at) => {
        const number = found.first + at;
        return h(
          "div",
          { class: number === line ? "source-line here" : "source-line", key: number },
          h("span", { class: "number" }, number),
          h("span", { class: "code" }, content === "" ? " " : text(content.replace(/\t/g, "    "))),
        );
      }),
    );
  }

  // ---- verdicts

  function amount(verdict, number) {
    const words = COUNTED[verdict.kind];
    if (!words) return size(number);
    const rounded = number.toLocaleString("en-GB", { maximumFractionDigits: 1 });
    return `${rounded} ${number === 1 ? words[0] : words[1]}`;
  }

  function subject(verdict) {
    if (verdict.task) return h("code", { class: "name" }, text(verdict.task));
    return lookup(PLACES, verdict.where);
  }

  function says(verdict) {
    if (verdict.state === "ended") return " leaks no more";
    return verdict.state === "leaking" ? " leaks" : " may leak";
  }

  function fact(term, ...content) {
    return h("div", { class: "fact", key: term }, h("dt", null, term), h("dd", null, ...content));
  }

  function facts(verdict, now) {
    const found = [];
    if (verdict.kind) found.push(fact("What grows", lookup(KINDS_OF_LEAK, verdict.kind)));
    if (verdict.types) found.push(fact("Multiplies", code(verdict.types)));
    if (verdict.holder) found.push(fact("Held by", ...chain(verdict.holder)));
    if (verdict.site)
      found.push(
        fact(
          "Allocated at",
          code(verdict.site),
          verdict.function ? [" in ", code(verdict.function)] : null,
          known(verdict.site_share) ? ` (${share(verdict.site_share)} of it)` : null,
        ),
      );
    if (verdict.where && verdict.where !== "task" && verdict.task)
      found.push(fact("Where", lookup(PLACES, verdict.where)));
    // What is further away than that is no forecast: the sentence above says so.
    if (known(verdict.exhaustion) && verdict.exhaustion < MONTH_S && verdict.state !== "ended")
      found.push(fact("Limit reached", `in about ${duration(verdict.exhaustion)} at this pace`));
    if (known(verdict.max_tasks) && verdict.state !== "ended")
      found.push(
        fact("Until it is fixed", code("max_tasks_per_child"), ` ≤ ${count(verdict.max_tasks)}`),
      );
    if (known(verdict.explained) && verdict.explained < 0.99)
      found.push(fact("Not explained", share(1 - verdict.explained), " of the growth"));
    const said = verdict.changed > verdict.began + 1 ? `, said last at ${moment(verdict.changed, now)}` : "";
    found.push(fact("First said", moment(verdict.began, now), said));
    return found;
  }

  function chain(holder) {
    return text(holder)
      .split(/ (?:->|→|>) /)
      .flatMap((each, at) => [at ? " → " : null, h("code", null, each)]);
  }

  // What is the same to the last digit that is shown is no range.
  function between(low, high) {
    return low === high ? null : `${low} to ${high}`;
  }

  function verdictCard(verdict, state) {
    const { snapshot } = state;
    const worker = snapshot.workers[verdict.worker];
    const kind = lookup(STATES, verdict.state);
    const known_rate = known(verdict.rate);
    const basis = [
      known(verdict.rate_low) && known(verdict.rate_high)
        ? between(amount(verdict, verdict.rate_low), amount(verdict, verdict.rate_high))
        : null,
      known(verdict.runs) ? plural(verdict.runs, "run") : null,
      known(verdict.processes) ? plural(verdict.processes, "process", "processes") : null,
    ].filter(Boolean);
    const grows = verdict.growth && verdict.growth.values.some((each) => each > 0);
    const growth = grows && verdict.growth.values.length > 1 ? verdict.growth : null;
    // Of descriptors and threads nothing is kept over time; memory would be beside the point.
    const over = growth ?? (COUNTED[verdict.kind] ? null : together(worker.processes));
    const caption = growth
      ? `What its runs have kept so far, estimated: ${size(growth.values[growth.values.length - 1])}`
      : "RSS of the worker's processes together";
    return h(
      "article",
      {
        class: `card verdict verdict-${STATES[verdict.state] ?? "other"}`,
        key: `${verdict.worker}/${verdict.task}/${verdict.where}/${verdict.kind}`,
      },
      h(
        "header",
        null,
        badge(STATES[verdict.state] ?? "other", kind),
        h("h3", null, subject(verdict), says(verdict)),
        h("span", { class: "of" }, "on ", code(worker.node || worker.service)),
      ),
      h(
        "div",
        { class: "verdict-body" },
        h(
          "div",
          null,
          known_rate
            ? h(
                "p",
                { class: "rate" },
                h("strong", null, amount(verdict, verdict.rate)),
                " a run",
                basis.length ? h("span", { class: "basis" }, basis.join(" · ")) : null,
              )
            : null,
          verdict.text ? h("p", { class: "sentences" }, text(verdict.text)) : null,
          h("dl", { class: "facts" }, facts(verdict, snapshot.now)),
        ),
        h(
          "div",
          null,
          over
            ? h(
                "figure",
                null,
                h(Plot, {
                  lines: [{ label: "kept", ...over }],
                  height: 150,
                  fill: true,
                  stroke: verdict.state === "leaking" ? "--red" : "--line-0",
                  label: caption,
                  theme: state.theme,
                }),
                h("figcaption", null, caption),
              )
            : null,
          verdict.source
            ? h(
                "figure",
                null,
                source(verdict),
                h("figcaption", null, code(verdict.path), ", as it is on this machine now"),
              )
            : verdict.path
              ? h("p", { class: "quiet" }, code(verdict.path), " cannot be read here.")
              : null,
        ),
      ),
    );
  }

  function together(processes) {
    const lines = processes.map((each) => each.rss_over_time).filter(Boolean);
    if (!lines.length) return null;
    const [times, ...columns] = uPlot.join(lines.map((each) => [each.times, each.values]));
    const last = columns.map(() => 0);
    const values = times.map((_, at) => {
      columns.forEach((column, number) => {
        if (known(column[at])) last[number] = column[at];
      });
      return last.reduce((sum, each) => sum + each, 0);
    });
    return values.length > 1 ? { times, values } : null;
  }

  function verdicts(state) {
    const { snapshot } = state;
    if (!snapshot.workers.length) return nothingYet(snapshot);
    if (snapshot.verdicts.length) return snapshot.verdicts.map((each) => verdictCard(each, state));
    const runs = snapshot.workers.reduce((sum, each) => sum + each.runs, 0);
    const grower = snapshot.workers
      .flatMap((worker) => worker.tasks)
      .filter((task) => (task.retained ?? 0) > 0 && (task.low ?? 0) > 0)
      .sort((one, two) => (two.share ?? 0) - (one.share ?? 0))[0];
    return h(
      "div",
      { class: "card calm" },
      h("h3", null, "No leak is established"),
      h(
        "p",
        null,
        `${plural(runs, "run")} measured in ${duration(snapshot.now - snapshot.since)}. `,
        grower
          ? [
              "Of the tasks, ",
              code(grower.name),
              ` keeps most so far: ${size(grower.retained)} a run. `,
            ]
          : null,
        snapshot.live
          ? "A verdict needs growth that goes on beyond what caches and warm-up explain: let the worker " +
              "run its usual tasks, some hundred runs or some minutes of them."
          : null,
      ),
    );
  }

  function nothingYet(snapshot) {
    const elsewhere = !/:4318$/.test(snapshot.endpoint);
    const variable = elsewhere ? `OTEL_EXPORTER_OTLP_ENDPOINT=${snapshot.endpoint} ` : "";
    if (!snapshot.live)
      return h(
        "div",
        { class: "card calm" },
        h("h3", null, "No worker sent anything"),
        h(
          "p",
          null,
          `From ${moment(snapshot.since, snapshot.now)} to ${moment(snapshot.now, snapshot.now)} nothing ` +
            "came to ",
          code(snapshot.endpoint),
          ". Was the worker instrumented, and did it send there? ",
          code("otel-celery-memory check"),
          ", run with the worker's environment, says why nothing would arrive.",
        ),
      );
    return h(
      "div",
      { class: "card calm" },
      h("h3", null, "No worker has sent anything yet"),
      h(
        "ol",
        { class: "steps" },
        h(
          "li",
          null,
          "In the module that makes your Celery app:",
          h(
            "pre",
            { tabIndex: 0 },
            "from otel_celery_memory import CeleryMemoryInstrumentor\n\nCeleryMemoryInstrumentor().instrument()",
          ),
        ),
        h(
          "li",
          null,
          "Start a worker on this machine:",
          h("pre", { tabIndex: 0 }, `${variable}celery -A yourapp worker`),
        ),
        h(
          "li",
          null,
          "Its first numbers come within 15 seconds, and lines of code after some runs. If nothing comes, run ",
          code("otel-celery-memory check"),
          " with the worker's environment: it says what is in the way.",
        ),
      ),
    );
  }

  // ---- workers and their processes

  function workerState(worker, now) {
    if (worker.state === "ended") return badge("ended", `shut down at ${moment(worker.last_seen, now)}`);
    if (worker.state === "silent")
      return badge("leaking", `silent since ${moment(worker.last_seen, now)}`);
    return badge("live", "sends");
  }

  function limitOf(process, worker) {
    const own = worker.limits.filter((each) => each.kind === "max_memory_per_child");
    const whole = ["cgroup", "cgroup_high", "host"].flatMap((kind) =>
      worker.limits.filter((each) => each.kind === kind),
    );
    return [...own, ...whole][0];
  }

  // Columns that say nothing of any process are left out.
  const PROCESS_COLUMNS = [
    {
      title: "RSS",
      number: true,
      cell: (process) =>
        h("span", { class: "with-spark" }, sparkline(process.rss_over_time, "RSS"), size(process.rss)),
    },
    { title: "unique", number: true, cell: (process) => size(process.unique) },
    {
      title: "copied since the fork",
      number: true,
      told: (process) => process.copied > 0,
      cell: (process) => size(process.copied),
    },
    {
      title: "started processes",
      number: true,
      told: (process) => process.descendants > 0,
      cell: (process) => size(process.descendants),
    },
    {
      title: "of its limit",
      told: (process, worker) => limitOf(process, worker),
      cell: (process, worker) => {
        const limit = limitOf(process, worker);
        if (!limit || !known(process.rss)) return "–";
        const part = process.rss / limit.size;
        const label = `${share(part)} of ${size(limit.size)}, ${lookup(LIMITS, limit.kind)}`;
        return [bar(part, label, true), h("span", { class: "quiet" }, label)];
      },
    },
    {
      title: "limit reached",
      number: true,
      told: (process) => known(process.exhaustion),
      cell: (process, worker) => {
        if (!known(process.exhaustion)) return "–";
        const whole = process.slot === "main" && limitOf(process, worker)?.each === false;
        return [
          `in ${duration(process.exhaustion)}`,
          whole ? h("span", { class: "quiet below" }, "all together") : null,
        ];
      },
    },
    {
      title: "in flight",
      told: (process) => process.task,
      cell: (process) =>
        process.task ? code(process.task) : "–",
    },
    { title: "files", number: true, cell: (process) => count(process.files) },
    { title: "threads", number: true, cell: (process) => count(process.threads) },
  ];

  function slotName(slot) {
    return /^\d+$/.test(slot) ? `child ${slot}` : text(slot);
  }

  function processTable(worker) {
    const columns = PROCESS_COLUMNS.filter(
      (column) => !column.told || worker.processes.some((each) => column.told(each, worker)),
    );
    const numbers = columns.flatMap((each, at) => (each.number ? [at + 1] : []));
    return h(
      "table",
      { class: "stacked processes" },
      head(["process", ...columns.map((each) => each.title)], numbers),
      h(
        "tbody",
        null,
        worker.processes.map((process) =>
          h(
            "tr",
            { key: process.slot, class: process.gone ? "gone" : "" },
            h(
              "th",
              { scope: "row" },
              slotName(process.slot),
              process.gone ? h("span", { class: "quiet below" }, "has ended") : null,
            ),
            columns.map((column) =>
              h(
                "td",
                { key: column.title, class: column.number ? "number" : "", "data-label": column.title },
                column.cell(process, worker),
              ),
            ),
          ),
        ),
      ),
    );
  }

  function notesOf(worker, now) {
    const notes = [];
    if (worker.state === "silent")
      notes.push(
        "It stopped sending without a goodbye: it was killed, cannot reach this address, or hangs. The numbers " +
          "are its last ones.",
      );
    if (worker.two)
      notes.push(
        "Two workers send under this name, and their numbers replace each other: give each a name of its own " +
          "(celery worker --hostname).",
      );
    if (worker.dropped)
      notes.push(`${plural(worker.dropped, "record")} did not reach the reporter: the numbers lack them.`);
    if (worker.reporter_restarts)
      notes.push(`Its reporter was started again ${plural(worker.reporter_restarts, "time")}.`);
    if (worker.switched_off.length)
      notes.push(
        `Switched off: ${worker.switched_off.map((each) => text(`${each.part} (${each.slot})`)).join(", ")}.`,
      );
    const held = ["reserved", "scheduled"].filter((each) => worker.messages[each] >= MANY_MESSAGES);
    if (held.length)
      notes.push(
        `The main process holds ${held
          .map((each) => `${count(worker.messages[each])} ${each}`)
          .join(" and ")} messages, which take memory there.`,
      );
    return notes;
  }

  // Without a name OpenTelemetry gives one that says so, which says nothing to a person.
  function serviceName(worker) {
    return worker.service.startsWith("unknown_service") ? "" : worker.service;
  }

  function workerCard(worker, number, state) {
    const { snapshot } = state;
    const lines = worker.processes
      .filter((each) => each.rss_over_time)
      .map((each) => ({
        label: slotName(each.slot),
        ...each.rss_over_time,
      }));
    const whole = worker.limits.filter((each) => !each.each && known(each.used));
    const more = Math.max(...lines.map((each) => each.times.length), 0) > 1;
    return h(
      "article",
      { class: "card", key: `${worker.service}/${worker.node}/${worker.host}` },
      h(
        "header",
        null,
        h("h3", null, code(worker.node || "a worker without a name")),
        workerState(worker, snapshot.now),
        h(
          "span",
          { class: "of" },
          [serviceName(worker), worker.host && `on ${worker.host}`].filter(Boolean).map(text).join(" "),
        ),
      ),
      notesOf(worker, snapshot.now).map((each) => h("p", { class: "note", key: each }, each)),
      whole.length
        ? h(
            "ul",
            { class: "limits" },
            whole.map((each) => {
              const label = `${share(each.used)} of ${size(each.size)}`;
              return h(
                "li",
                { key: each.kind },
                h("span", null, lookup(LIMITS, each.kind)),
                bar(each.used, `${lookup(LIMITS, each.kind)}: ${label}`, true),
                h("span", { class: "quiet" }, label),
              );
            }),
          )
        : null,
      more
        ? h(
            "figure",
            null,
            h(Plot, { lines, height: 190, label: "RSS of each process over time", theme: state.theme }),
            h("figcaption", null, "RSS of each process"),
            lines.length > 1 ? legend(lines) : null,
          )
        : null,
      worker.processes.length
        ? scrolling(`Processes of ${text(worker.node)}`, processTable(worker))
        : h("p", { class: "quiet" }, "It has sent no number of its processes yet."),
    );
  }

  function workers(state) {
    const { snapshot } = state;
    if (!snapshot.workers.length)
      return h("p", { class: "quiet" }, "Memory of each process of a worker, once one sends.");
    return [
      snapshot.workers.map((each, number) => workerCard(each, number, state)),
      snapshot.app || !snapshot.live
        ? null
        : h(
            "p",
            { class: "quiet" },
            "What each process runs right now is told by the worker itself: ",
            code("otel-celery-memory view -A yourapp"),
            ".",
          ),
    ];
  }

  // ---- tables

  function head(titles, numbers) {
    return h(
      "thead",
      null,
      h(
        "tr",
        null,
        titles.map((each, at) =>
          h("th", { scope: "col", key: each, class: numbers.includes(at) ? "number" : null }, each),
        ),
      ),
    );
  }

  function scrolling(label, table) {
    return h("div", { class: "scrolling", role: "region", "aria-label": label, tabIndex: 0 }, table);
  }

  function retainedCell(task) {
    if (!known(task.retained)) return [h("span", { class: "quiet" }, "not sampled yet")];
    const range = known(task.low) ? between(size(task.low), size(task.high)) : null;
    const sure = [range, `${count(task.sampled)} sampled`].filter(Boolean).join(", ");
    return [size(task.retained), h("span", { class: "quiet below" }, sure)];
  }

  const COLUMNS = [
    { key: "name", title: "task", first: "ascending" },
    { key: "runs", title: "runs", number: true },
    { key: "retained", title: "retained a run", number: true },
    { key: "share", title: "share of growth", number: true },
    { key: "peak", title: "highest peak", number: true },
    { key: "rss_delta", title: "RSS a run", number: true },
    { key: "traced_runs", title: "traced runs", number: true },
  ];

  function compare(key, direction) {
    const sign = direction === "ascending" ? 1 : -1;
    return (one, two) => {
      const [a, b] = [one[key], two[key]];
      if (typeof a === "string") return sign * a.localeCompare(b) || one.at - two.at;
      // What is not known comes last, whichever way.
      if (!known(a) || !known(b)) return known(b) - known(a) || one.at - two.at;
      return sign * (a - b) || one.at - two.at;
    };
  }

  function chunks(rows, size) {
    const found = [];
    for (let at = 0; at < rows.length; at += size) found.push(rows.slice(at, at + size));
    return found;
  }

  // Some rows of the table of tasks. Far from what can be seen they are one empty row of their height:
  // to lay out and paint a thousand takes seconds.
  class Rows extends Component {
    static rowHeight = 44;
    state = { near: false, height: null };

    componentDidMount() {
      this.observer = new IntersectionObserver((seen) => this.note(seen[seen.length - 1]), {
        rootMargin: "800px 0px",
      });
      this.observer.observe(this.base);
    }

    componentWillUnmount() {
      this.observer.disconnect();
    }

    note({ isIntersecting, boundingClientRect: { height } }) {
      if ((this.state.near || !this.props.first) && height) {
        Rows.rowHeight = height / this.props.tasks.length;
        this.setState({ near: isIntersecting, height });
      } else this.setState({ near: isIntersecting });
    }

    render({ tasks, several, first, whole }, { near, height }) {
      // The first ones are always there: for what finds or prints a page without scrolling it.
      if (near || whole || !first)
        return h(
          "tbody",
          null,
          tasks.map((task, at) => taskRow(task, several, first + at)),
        );
      return h(
        "tbody",
        { "aria-hidden": "true" },
        h(
          "tr",
          { class: "unseen" },
          h("td", {
            colSpan: COLUMNS.length,
            style: { height: `${height ?? Rows.rowHeight * tasks.length}px` },
          }),
        ),
      );
    }
  }

  function taskRow(task, several, at) {
    return h(
      "tr",
      // The first row is that of the titles.
      { key: `${task.worker}/${task.host}/${task.name}`, "aria-rowindex": at + 2 },
      h(
        "th",
        { scope: "row" },
        h("span", { class: "name" }, text(task.name)),
        several ? h("span", { class: "quiet below" }, text(task.worker)) : null,
      ),
      h(
        "td",
        { class: "number", "data-label": "runs" },
        count(task.runs),
        task.failed ? h("span", { class: "quiet below" }, `${count(task.failed)} failed`) : null,
      ),
      h("td", { class: "number", "data-label": "retained a run" }, retainedCell(task)),
      h(
        "td",
        { class: "number", "data-label": "share of growth" },
        known(task.share)
          ? [bar(task.share, share(task.share)), h("span", { class: "quiet" }, share(task.share))]
          : "–",
      ),
      h("td", { class: "number", "data-label": "highest peak" }, size(task.peak)),
      h("td", { class: "number", "data-label": "RSS a run" }, size(task.rss_delta)),
      h("td", { class: "number", "data-label": "traced runs" }, count(task.traced_runs)),
    );
  }

  class Tasks extends Component {
    state = { key: "share", direction: "descending", all: false, filter: "", printed: false };

    componentDidMount() {
      this.prints = () => this.setState({ printed: true });
      this.printed = () => this.setState({ printed: false });
      addEventListener("beforeprint", this.prints);
      addEventListener("afterprint", this.printed);
    }

    componentWillUnmount() {
      removeEventListener("beforeprint", this.prints);
      removeEventListener("afterprint", this.printed);
    }

    sort(column) {
      const { key, direction } = this.state;
      const other = direction === "ascending" ? "descending" : "ascending";
      this.setState({
        key: column.key,
        direction: column.key === key ? other : (column.first ?? "descending"),
      });
    }

    render({ snapshot }, { key, direction, all, filter, printed }) {
      const several = snapshot.workers.length > 1;
      const rows = snapshot.workers.flatMap((worker) =>
        worker.tasks.map((task) => ({ ...task, worker: worker.node, host: worker.host })),
      );
      rows.forEach((row, at) => (row.at = at));
      if (!rows.length)
        return h("p", { class: "quiet" }, "No run of a task has been measured yet: send the worker some.");
      const wanted = filter.trim().toLowerCase();
      const matching = rows.filter((row) => row.name.toLowerCase().includes(wanted));
      matching.sort(compare(key, direction));
      const shown = all ? matching : matching.slice(0, ROWS_FIRST);
      return h(
        "div",
        { class: "card" },
        rows.length > 10
          ? h(
              "label",
              { class: "filter" },
              "Task ",
              h("input", {
                type: "search",
                value: filter,
                placeholder: "part of its name",
                onInput: (event) => this.setState({ filter: event.target.value }),
              }),
              h("span", { class: "quiet" }, `${count(matching.length)} of ${count(rows.length)}`),
            )
          : null,
        // Where the titles have no room the order is chosen here.
        h(
          "label",
          { class: "filter narrow" },
          "Sorted by ",
          h(
            "select",
            {
              value: key,
              onChange: (event) => this.sort(COLUMNS.find((each) => each.key === event.target.value)),
            },
            COLUMNS.map((column) => h("option", { key: column.key, value: column.key }, column.title)),
          ),
        ),
        scrolling(
          "Tasks",
          h(
            "table",
            { class: "stacked tasks", "aria-rowcount": shown.length + 1 },
            h(
              "thead",
              null,
              h(
                "tr",
                null,
                COLUMNS.map((column) =>
                  h(
                    "th",
                    {
                      scope: "col",
                      key: column.key,
                      class: column.number ? "number" : null,
                      "aria-sort": column.key === key ? direction : "none",
                    },
                    h("button", { type: "button", onClick: () => this.sort(column) }, column.title),
                  ),
                ),
              ),
            ),
            chunks(shown, ROWS_FIRST).map((tasks, number) =>
              h(Rows, { key: number, tasks, several, first: number * ROWS_FIRST, whole: printed }),
            ),
          ),
        ),
        matching.length > ROWS_FIRST
          ? h(
              "button",
              { type: "button", class: "more", onClick: () => this.setState({ all: !all }) },
              all ? `Show the first ${ROWS_FIRST}` : `Show all ${count(matching.length)}`,
            )
          : null,
        matching.length ? null : h("p", { class: "quiet" }, "No task has that in its name."),
      );
    }
  }

  // ---- sites

  function sites(state) {
    const { snapshot } = state;
    const rows = snapshot.workers.flatMap((worker) => worker.sites.map((site) => ({ ...site, worker })));
    if (!rows.length)
      return h(
        "p",
        { class: "quiet" },
        "No line of code stands out yet. Runs are traced within a budget of 1 % of the tasks' CPU time, and lines " +
          "are told once a minute from the second minute on.",
      );
    const most = Math.max(...rows.map((each) => each.rate ?? 0), 0);
    return h(
      "ol",
      { class: "card sites" },
      rows.map((site) =>
        h(
          "li",
          { key: `${site.worker.node}/${site.rank}/${site.name}/${site.task}` },
          h(
            "details",
            null,
            h(
              "summary",
              null,
              h(
                "span",
                { class: "place" },
                code(site.name),
                site.function ? [" in ", code(site.function)] : null,
                h(
                  "span",
                  { class: "quiet below" },
                  site.task ? text(site.task) : lookup(PLACES, site.where),
                  snapshot.workers.length > 1 ? `, on ${text(site.worker.node)}` : null,
                ),
              ),
              h(
                "span",
                { class: "amount" },
                `${size(site.size)} a run`,
                known(site.rate)
                  ? h("span", { class: "quiet below" }, `${size(site.rate)} a minute`)
                  : null,
              ),
              most > 0 && known(site.rate) ? bar(site.rate / most, "compared with the first") : h("span", { class: "bar" }),
            ),
            h(
              "p",
              { class: "quiet" },
              `${plural(site.blocks ?? 0, "block")}, ${lookup(WINDOWS, site.window)}; ` +
                `mean of ${plural(site.runs ?? 0, "traced run")}`,
              site.via ? ["; it went through ", code(site.via)] : null,
              ".",
            ),
            site.source
              ? source(site)
              : h("p", { class: "quiet" }, code(site.path), " cannot be read on this machine."),
          ),
        ),
      ),
    );
  }

  // ---- what happened

  function sentenceOf(item) {
    if (item.kind === "recycled")
      return `${plural(item.count, "process", "processes")} recycled ${lookup(RECYCLED, item.subject)}`;
    if (item.kind === "pressure")
      return `A limit is near: ${lookup(LIMITS, item.subject)}, in ${plural(item.lines.length, "process", "processes")}`;
    if (item.kind === "census" && item.grown.length) return census(item);
    if (item.kind === "leak") return text(headline(item));
    return text(item.lines[0] ?? item.subject);
  }

  // Of a verdict the first sentence, which says who and how much: all of them stand on its card.
  function headline(item) {
    return /^.+?\)\.(?= |$)/.exec(item.lines[0] ?? "")?.[0] ?? item.subject;
  }

  // The processes of a worker run the same code: what they agree on is said once.
  function census({ grown, subject }) {
    const [most, ...others] = grown;
    return [
      `${count(most.growth)} more objects of `,
      code(most.type),
      most.holder ? [" held by ", ...chain(most.holder)] : null,
      ` in ${plural(most.processes, "process", "processes")}`,
      subject ? [", after runs of ", code(subject)] : null,
      others.length ? `; and ${plural(others.length, "other growth", "other growths")}` : null,
    ];
  }

  class Happened extends Component {
    state = { only: null };

    render({ snapshot }, { only }) {
      const items = [...snapshot.timeline, ...ofWorkers(snapshot)].sort((one, two) => two.time - one.time);
      const kinds = [...new Set(items.map((each) => each.kind))];
      if (!items.length)
        return h("p", { class: "quiet" }, "Losses, pressure, recycling and captures, as they happen.");
      const shown = items.filter((each) => !only || each.kind === only).slice(0, 100);
      return h(
        "div",
        { class: "card" },
        kinds.length > 1
          ? h(
              "div",
              { class: "choices", role: "group", "aria-label": "Show only" },
              kinds.map((kind) =>
                h(
                  "button",
                  {
                    type: "button",
                    key: kind,
                    "aria-pressed": String(only === kind),
                    onClick: () => this.setState({ only: only === kind ? null : kind }),
                  },
                  `${lookup(HAPPENINGS, kind)} ${count(items.filter((each) => each.kind === kind).length)}`,
                ),
              ),
            )
          : null,
        h(
          "ol",
          { class: "timeline" },
          shown.map((item) =>
            h(
              "li",
              { key: `${item.time}/${item.kind}/${item.worker}/${item.subject}/${item.lines[0] ?? ""}` },
              h("time", null, moment(item.time, snapshot.now)),
              h("span", { class: `badge badge-${item.kind in HAPPENINGS ? item.kind : "other"}` }, lookup(HAPPENINGS, item.kind)),
              h(
                "div",
                null,
                h("p", null, sentenceOf(item)),
                snapshot.workers.length > 1
                  ? h("p", { class: "quiet" }, code(snapshot.workers[item.worker].node))
                  : null,
                item.kind === "pressure" || item.kind === "leak" || item.grown.length || item.lines.length > 1
                  ? h(
                      "details",
                      null,
                      h("summary", null, "What was said"),
                      h("ul", null, item.lines.map((line) => h("li", { key: line }, text(line)))),
                    )
                  : null,
              ),
            ),
          ),
        ),
      );
    }
  }

  function ofWorkers(snapshot) {
    return snapshot.workers.flatMap((worker, number) => {
      const item = { kind: "worker", worker: number, count: 1, details: {}, grown: [] };
      const name = text(worker.node);
      const found = [{ ...item, time: worker.first_seen, subject: "first", lines: [`${name} began to send`] }];
      if (worker.state !== "live")
        found.push({
          ...item,
          time: worker.last_seen,
          subject: "last",
          lines: [worker.state === "ended" ? `${name} shut down` : `${name} sent the last time`],
        });
      return found;
    });
  }

  return { verdicts, workers, sites, Tasks, Happened, badge, code, head, scrolling, lookup };
})();
