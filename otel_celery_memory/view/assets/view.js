"use strict";
// The page: where its data comes from, and the order of its parts.

(() => {
  const { h, render, Component } = preact;
  const { plural, moment, clock } = format;
  const { verdicts, workers, sites, Tasks, Happened, badge } = parts;
  const THEMES = ["system", "light", "dark"];
  const KEPT = "otel-celery-memory-theme";

  function kept() {
    try {
      const theme = localStorage.getItem(KEPT);
      return THEMES.includes(theme) ? theme : "system";
    } catch {
      return "system"; // a file, or a browser that keeps nothing
    }
  }

  function keep(theme) {
    try {
      localStorage.setItem(KEPT, theme);
    } catch {
      // It is for this time only then.
    }
  }

  class Page extends Component {
    state = { snapshot: null, connected: true, choice: kept(), theme: "" };

    componentDidMount() {
      this.dark = matchMedia("(prefers-color-scheme: dark)");
      this.dark.addEventListener("change", () => this.use(this.state.choice));
      this.use(this.state.choice);
      const saved = document.getElementById("snapshot");
      if (saved) this.setState({ snapshot: JSON.parse(saved.textContent) });
      else this.listen();
    }

    listen() {
      const events = new EventSource("/live");
      events.onmessage = (event) =>
        this.setState({ snapshot: JSON.parse(event.data), connected: true });
      events.onerror = () => {
        this.setState({ connected: false });
        // What was refused, and not only cut off, the browser does not try again.
        if (events.readyState === EventSource.CLOSED) setTimeout(() => this.listen(), 5000);
      };
    }

    use(choice) {
      const theme = choice === "system" ? (this.dark.matches ? "dark" : "light") : choice;
      document.documentElement.dataset.theme = theme;
      keep(choice);
      this.setState({ choice, theme });
    }

    render(_, state) {
      const { snapshot, connected, choice } = state;
      if (!snapshot)
        return h("p", { class: "waiting" }, connected ? "Waiting for data …" : "The view cannot be reached.");
      const next = THEMES[(THEMES.indexOf(choice) + 1) % THEMES.length];
      return [
        h(
          "header",
          { class: "top" },
          h("h1", null, "Memory of Celery workers"),
          h("p", { class: "summary" }, ...summary(snapshot, connected)),
          h(
            "div",
            { class: "actions" },
            snapshot.live
              ? h("a", { class: "button", href: "/report.html", download: "celery-memory.html" }, "Save as a file")
              : null,
            h(
              "button",
              { type: "button", title: `Colours: ${choice}`, onClick: () => this.use(next) },
              `Colours: ${choice}`,
            ),
          ),
        ),
        connected
          ? null
          : h(
              "p",
              { class: "banner", role: "alert" },
              `The view has ended or cannot be reached. This is what it last said, at ${clock(snapshot.now)}; it is tried again.`,
            ),
        h(
          "main",
          { id: "main", tabIndex: -1 },
          section("verdicts", "Verdicts", verdicts(state)),
          section("processes", "Processes", workers(state)),
          section("tasks", "Tasks", h(Tasks, { snapshot })),
          section("sites", "Lines that leave memory behind", sites(state)),
          section("captures", "Captures", captures.all(snapshot)),
          section("happened", "What happened", h(Happened, { snapshot })),
        ),
        h("footer", null, ...foot(snapshot)),
      ];
    }
  }

  function section(name, title, content) {
    return h(
      "section",
      { id: name, "aria-labelledby": `${name}-title`, key: name },
      h("h2", { id: `${name}-title` }, title),
      content,
    );
  }

  function summary(snapshot, connected) {
    const runs = snapshot.workers.reduce((sum, each) => sum + each.runs, 0);
    const sending = snapshot.workers.filter((each) => each.state === "live").length;
    const state = !snapshot.live
      ? badge("other", `saved ${moment(snapshot.now, Date.now() / 1000)}`)
      : connected
        ? badge("live", "live")
        : badge("leaking", "not connected");
    const told = [
      plural(snapshot.workers.length, "worker"),
      snapshot.workers.length && sending !== snapshot.workers.length ? `${sending} sending` : null,
      `${plural(runs, "run")} measured`,
      `since ${moment(snapshot.since, snapshot.now)}`,
    ];
    return [state, ` ${told.filter(Boolean).join(" · ")}`];
  }

  function foot(snapshot) {
    const parts_ = [`otel-celery-memory ${snapshot.version}`];
    if (snapshot.live) {
      const overGrpc = snapshot.grpc ? `, or over gRPC to ${snapshot.grpc}` : "";
      parts_.push(`workers send to ${snapshot.endpoint}${overGrpc}`);
    }
    if (snapshot.left_out) parts_.push(`${plural(snapshot.left_out, "number")} had no room and are not shown`);
    return [parts_.join(" · ")];
  }

  render(h(Page), document.getElementById("page"));
})();
