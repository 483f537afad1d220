// Draws every figure of the report again, from the data at the end of the page, so that it answers to
// pointer, touch and keys: values under the pointer, zoom, series and slices to choose. Observable Plot
// draws, d3-zoom moves. Without this script, and on paper, the drawings that stand in the page remain.
"use strict";
(() => {
  const STYLES = 5, MAX_BINS = 120, MAX_STEPS = 40, MAX_NAMES = 10, MAX_LISTED = 200;
  const DASHES = ["none", "6 2.5", "1.75 2.25", "9 2.5 1.75 2.5", "12 4"];
  const style = (i) => `var(--s${(i % STYLES) + 1})`;
  const axis = { grid: true, tickSize: 0 };

  const number = (x) => {
    if (x == null || Number.isNaN(x)) return "n/a";
    if (Number.isInteger(x)) return x.toLocaleString("en-US").replace("-", "\u2212");
    const size = Math.abs(x);
    const text = size < 1e-3 || size >= 1e6 ? x.toExponential(2) : String(Number(x.toPrecision(4)));
    return text.replace("-", "\u2212");
  };
  const percent = (share) => `${number(100 * share)}\u202f%`;
  const withInterval = (x, interval) =>
    interval ? `${number(x)} [${number(interval[0])}, ${number(interval[1])}]` : number(x);

  const element = (name, attributes = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (value === true) node.setAttribute(key, "");
      else if (value !== false && value != null) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };

  const padded = ([lo, hi], share) => {
    if (!(lo <= hi)) return [0, 1];
    const pad = hi - lo > 1e-12 * Math.max(Math.abs(lo), Math.abs(hi)) ? share * (hi - lo) : 0.1 * Math.abs(lo) || 0.5;
    return [lo - pad, hi + pad];
  };

  const tip = { fill: "var(--paper)", stroke: "var(--axis)", fontSize: 12, lineHeight: 1.25 };

  // Each form: the whole range of its axes (`range`), which may be zoomed, what it draws for a view of
  // them (`draw`), and its numbers as a table (`table`).
  const forms = {
    densities: {
      zoom: "x",
      series: (plot) => plot.series.map((s, i) => ({ name: s.name, colour: style(i), dash: DASHES[i % STYLES] })),
      range(plot) {
        const ends = plot.series.flatMap((s) => this.counts(s).flatMap((n, i) => (n > 0 ? [s.edges[i], s.edges[i + 1]] : [])));
        return { x: padded(d3.extent([...ends, ...plot.marks.map((m) => m.at)]), 0.02) };
      },
      counts: ({ counts, edges }) => counts.slice(0, Math.max(0, edges.length - 1)),
      bins(histogram, [lo, hi]) {
        const { edges } = histogram, counts = this.counts(histogram);
        const total = d3.sum(counts);
        let first = counts.findIndex((n, i) => n > 0 && edges[i + 1] >= lo);
        let last = counts.length - 1;
        while (last >= 0 && !(counts[last] > 0 && edges[last] <= hi)) last -= 1;
        if (total === 0 || first < 0 || last < first) return [];
        // Joined bins begin at multiples of their width, so that shapes do not flicker while they move.
        const joined = Math.ceil((last - first + 1) / MAX_BINS);
        first -= first % joined;
        return d3.range(first, last + 1, joined).map((i) => {
          const end = Math.min(i + joined, counts.length);
          const share = d3.sum(counts.slice(i, end)) / total;
          const width = edges[end] - edges[i];
          return { lo: edges[i], hi: edges[end], mid: (edges[i] + edges[end]) / 2, share, density: width > 0 ? share / width : 0 };
        });
      },
      draw(plot, view) {
        const shown = plot.series.map((s, i) => ({ s, i, bins: this.bins(s, view.x) })).filter(({ i }) => !view.hidden.has(i));
        const peak = d3.max(shown.flatMap(({ bins }) => bins), (b) => b.density) || 1;
        const marks = shown.flatMap(({ i, bins }) => {
          if (bins.length && !bins.some((b) => b.density > 0)) return [Plot.ruleX([bins[0].lo], { stroke: style(i), strokeWidth: 2 })];
          const curve = bins.length <= MAX_STEPS ? "step" : "linear";
          const ends = bins.length ? [{ mid: bins[0].lo, density: 0 }, ...bins, { mid: bins.at(-1).hi, density: 0 }] : [];
          return [
            Plot.areaY(ends, { x: "mid", y: "density", fill: style(i), fillOpacity: i ? 0.1 : 0.2, curve, clip: true }),
            Plot.lineY(ends, { x: "mid", y: "density", stroke: style(i), strokeWidth: 1.75, strokeDasharray: DASHES[i % STYLES], curve, clip: true }),
          ];
        });
        const within = plot.marks.filter((m) => m.at >= view.x[0] && m.at <= view.x[1]);
        const points = shown.flatMap(({ bins }) => bins);
        const shareAt = (bins, x) => bins.find((b) => b.lo <= x && x < b.hi)?.share ?? 0;
        const title = (b) => [`${number(b.lo)} to ${number(b.hi)}`, ...shown.map(({ s, bins }) => `${s.name}: ${percent(shareAt(bins, b.mid))}`)].join("\n");
        return {
          height: 270,
          marginTop: 14 + 15 * within.length,
          x: { label: plot.x_label, labelAnchor: "center", labelArrow: "none", tickSize: 0 },
          y: { domain: [0, 1.05 * peak], label: null, ticks: 4, ...axis },
          marks: [
            ...marks,
            Plot.ruleX(within, { x: "at", stroke: "var(--ink)", strokeDasharray: "2 2" }),
            ...within.map((m, i) => Plot.text([m], { x: "at", frameAnchor: "top", dy: -10 - 15 * i, text: "label", textAnchor: view.side(m.at), stroke: "var(--paper)", strokeWidth: 3, fill: "var(--ink)" })),
            Plot.ruleX(points, Plot.pointerX({ x: "mid", stroke: "var(--soft)" })),
            Plot.tip(points, Plot.pointerX({ x: "mid", y: "density", title, ...tip })),
          ],
        };
      },
      table(plot) {
        const rows = plot.series.flatMap((s) => this.bins(s, [-Infinity, Infinity]).map((b) => [s.name, `${number(b.lo)} to ${number(b.hi)}`, percent(b.share)]));
        return { columns: ["", plot.x_label, "share"], rows };
      },
    },

    curve: {
      zoom: "x",
      series(plot) {
        let measured = 0;
        return plot.series.map((s) => (s.role === "baseline" ? { name: s.name, colour: "var(--axis)", dash: "2 3" } : { name: s.name, colour: style(measured), dash: DASHES[measured++ % STYLES] }));
      },
      points: (plot, line) => line.points.filter((p) => plot.x_axis !== "log" || p.x > 0),
      range(plot) {
        const points = plot.series.flatMap((s) => this.points(plot, s));
        const xs = d3.extent(points, (p) => p.x);
        let x = padded(xs, 0.03);
        if (plot.x_axis === "log") {
          const factor = xs[1] > xs[0] ? (xs[1] / xs[0]) ** 0.04 : 2;
          x = xs[0] == null ? [1, 10] : [xs[0] / factor, xs[1] * factor];
        }
        return { x, log: plot.x_axis === "log" };
      },
      draw(plot, view) {
        const looks = this.series(plot);
        const shown = plot.series.map((s, i) => ({ s, look: looks[i], i, points: this.points(plot, s) })).filter(({ i }) => !view.hidden.has(i));
        const values = [...shown.flatMap(({ points }) => points.flatMap((p) => [p.y, ...(p.interval ?? [])])), ...plot.levels.map((l) => l.at)];
        let [lo, hi] = d3.extent(values);
        if (lo > 0 && lo < 0.6 * hi) lo = 0;
        const marks = shown.flatMap(({ s, look, points }) => {
          const banded = points.filter((p) => p.interval);
          const bounds = { x: "x", y1: (p) => p.interval[0], y2: (p) => p.interval[1] };
          return [
            banded.length > 24
              ? Plot.areaY(banded, { ...bounds, fill: look.colour, fillOpacity: 0.16, clip: true })
              : Plot.ruleX(banded, { ...bounds, stroke: look.colour, strokeWidth: 1.5, marker: "tick", clip: true }),
            Plot.lineY(points, { x: "x", y: "y", stroke: look.colour, strokeWidth: s.role === "baseline" ? 1.25 : 1.75, strokeDasharray: look.dash, clip: true }),
            ...(s.role === "measured" && points.length <= 48 ? [Plot.dot(points, { x: "x", y: "y", fill: look.colour, stroke: "var(--paper)", r: 4, clip: true })] : []),
          ];
        });
        const all = shown.flatMap(({ s, points }) => points.map((p) => ({ ...p, name: s.name })));
        const labelled = plot.x_axis.labelled;
        const label = (x) => labelled?.find((m) => m.at === x)?.label ?? number(x);
        return {
          height: 280,
          x: { label: plot.x_label, labelAnchor: "center", labelArrow: "none", type: plot.x_axis === "log" ? "log" : "linear", tickSize: 0,
            ...(labelled ? { ticks: labelled.map((m) => m.at), tickFormat: label } : plot.x_axis === "log" ? { ticks: 5, tickFormat: number } : {}) },
          y: { domain: padded([lo, hi], 0.04).map((y) => (lo === 0 ? Math.max(0, y) : y)), label: plot.y_label, labelArrow: "none", ticks: 5, ...axis },
          marks: [
            Plot.ruleY(plot.levels, { y: "at", stroke: "var(--soft)", strokeDasharray: "6 3" }),
            Plot.text(plot.levels, { y: "at", text: "label", frameAnchor: "right", dy: -7, fill: "var(--soft)", textAnchor: "end" }),
            ...marks,
            Plot.tip(all, Plot.pointer({ x: "x", y: "y", title: (p) => `${p.name}\n${plot.x_label} ${label(p.x)}: ${withInterval(p.y, p.interval)}`, ...tip })),
          ],
        };
      },
      table: (plot) => ({ columns: ["", plot.x_label, plot.y_label], rows: plot.series.flatMap((s) => s.points.map((p) => [s.name, number(p.x), withInterval(p.y, p.interval)])) }),
    },

    bars: {
      zoom: "x",
      series: (plot) => plot.series.map((s, i) => ({ name: s.name, colour: style(i), bar: true })),
      range: (plot) => ({ x: [-0.5, Math.max(plot.categories.length, 1) - 0.5] }),
      draw(plot, view) {
        const shown = plot.series.map((s, i) => ({ s, i })).filter(({ i }) => !view.hidden.has(i));
        const width = 0.8 / Math.max(shown.length, 1);
        const bars = shown.flatMap(({ s, i }, j) => s.values.slice(0, plot.categories.length).map((value, at) => ({ x1: at - 0.4 + j * width, x2: at - 0.4 + (j + 1) * width, at, value, name: s.name, i })));
        const room = (Math.max(...plot.categories.map((c) => c.length), 1) * 7 + 10) * (view.x[1] - view.x[0]);
        const every = Math.max(1, Math.ceil(room / view.width));
        return {
          height: 260,
          x: { label: plot.x_label, labelAnchor: "center", labelArrow: "none", tickSize: 0, tickFormat: (i) => plot.categories[i] ?? "",
            ticks: d3.range(0, plot.categories.length, every).filter((i) => i >= view.x[0] && i <= view.x[1]) },
          y: { label: plot.y_label, labelArrow: "none", nice: true, ticks: 5, tickFormat: "~s", ...axis },
          marks: [
            Plot.rectY(bars, { x1: "x1", x2: "x2", y: "value", fill: (b) => style(b.i), insetRight: 1, clip: true }),
            Plot.ruleY([0], { stroke: "var(--axis)" }),
            Plot.tip(bars, Plot.pointerX({ x: (b) => (b.x1 + b.x2) / 2, y: "value", title: (b) => `${shown.length > 1 ? `${b.name}\n` : ""}${plot.x_label} ${plot.categories[b.at]}: ${number(b.value)}`, ...tip })),
          ],
        };
      },
      table: (plot) => ({ columns: [plot.x_label, ...plot.series.map((s) => s.name)], rows: plot.categories.map((c, i) => [c, ...plot.series.map((s) => number(s.values[i]))]) }),
    },

    intervals: {
      zoom: "x",
      series: () => [],
      range: (plot) => ({ x: padded(d3.extent([...plot.rows.flatMap((r) => [r.estimate, r.margin, ...(r.interval ?? [])]), plot.no_effect].filter((x) => x != null)), 0.05) }),
      draw(plot, view) {
        const rows = plot.rows.map((r, i) => ({ ...r, i, low: r.interval?.[0], high: r.interval?.[1], value: withInterval(r.estimate, r.interval) }));
        const letters = Math.max(...rows.map((r) => r.label.length), 1) * 7 + 16, values = Math.max(...rows.map((r) => r.value.length), 1) * 6.8 + 14;
        // Where label, interval and value do not fit side by side, the words get a line of their own.
        const stacked = view.width - letters - values < 0.38 * view.width;
        const band = stacked ? 44 : 28, words = stacked ? -17 : 0;
        const title = (r) => [r.label, r.value, ...(r.margin == null ? [] : [`margin ${number(r.margin)}`])].join("\n");
        const faint = (r) => (view.slice && view.slice !== r.label ? 0.35 : 1);
        return {
          height: band * Math.max(rows.length, 1) + 58,
          marginLeft: stacked ? 8 : letters, marginRight: stacked ? 8 : values, marginTop: 8,
          x: { label: plot.x_label, labelAnchor: "center", labelArrow: "none", tickSize: 0, grid: true },
          y: { domain: [rows.length - 0.5 + (stacked ? 0.1 : 0), -0.5 - (stacked ? 0.1 : 0)], axis: null },
          marks: [
            ...(plot.no_effect == null ? [] : [Plot.ruleX([plot.no_effect], { stroke: "var(--axis)" })]),
            Plot.ruleY(rows.filter((r) => r.interval), { x1: "low", x2: "high", y: "i", stroke: "var(--s1)", strokeWidth: 1.75, strokeOpacity: faint, clip: true }),
            Plot.dot(rows.filter((r) => r.margin != null), { x: "margin", y: "i", symbol: "diamond", stroke: "var(--ink)", fill: "var(--paper)", r: 4, clip: true }),
            Plot.dot(rows.filter((r) => r.estimate != null), { x: "estimate", y: "i", fill: "var(--s1)", fillOpacity: faint, stroke: "var(--paper)", r: 4.5, clip: true }),
            Plot.text(rows, { y: "i", text: "label", frameAnchor: "left", textAnchor: stacked ? "start" : "end", dx: stacked ? 0 : -8, dy: words, fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 3 }),
            Plot.text(rows, { y: "i", text: "value", frameAnchor: "right", textAnchor: stacked ? "end" : "start", dx: stacked ? 0 : 8, dy: words, fill: "var(--ink)", stroke: "var(--paper)", strokeWidth: 3 }),
            Plot.tip(rows, Plot.pointerY({ x: (r) => r.estimate ?? r.low, y: "i", title, ...tip })),
          ],
        };
      },
      table: (plot) => ({ columns: ["", plot.x_label, "margin"], rows: plot.rows.map((r) => [r.label, withInterval(r.estimate, r.interval), number(r.margin)]) }),
    },

    scatter: {
      zoom: "xy",
      series: () => [],
      range(plot) {
        const points = plot.panels.flatMap((p) => p.points).filter(Boolean);
        return { x: padded(d3.extent(points, (p) => p[0]), 0.04), y: padded(d3.extent(points, (p) => p[1]), 0.04) };
      },
      shown: (plot, view) => d3.range(plot.ids.length).filter((i) => !view.filter || view.filter.of[i] === view.filter.at),
      colours(plot, view) {
        const shade = plot.shades[view.shade];
        if (!shade) return { of: () => "var(--s1)" };
        const { numbers, names } = shade.values;
        if (numbers) {
          const known = numbers.filter((v) => v != null).sort(d3.ascending);
          // A few far values must not leave one colour to all others.
          const [lo, hi] = [d3.quantileSorted(known, 0.02) ?? 0, d3.quantileSorted(known, 0.98) ?? 1];
          const computed = getComputedStyle(document.documentElement);
          const ramp = d3.interpolateRgbBasis([1, 2, 3, 4, 5].map((i) => computed.getPropertyValue(`--m${i}`).trim()));
          const at = (v) => (hi > lo ? Math.min(1, Math.max(0, (v - lo) / (hi - lo))) : 0.5);
          return { lo, hi, of: (i) => (numbers[i] == null ? "var(--axis)" : ramp(at(numbers[i]))) };
        }
        const sizes = d3.rollup(names.of.filter((n) => n != null), (v) => v.length, (n) => n);
        const ranked = d3.sort(sizes.keys(), (n) => -sizes.get(n), (n) => n).slice(0, MAX_NAMES);
        const colour = new Map(ranked.map((n, j) => [n, d3.schemeTableau10[j]]));
        const entries = ranked.map((n) => ({ name: names.names[n], colour: colour.get(n) }));
        if (sizes.size > ranked.length) entries.push({ name: `${sizes.size - ranked.length} others`, colour: "var(--axis)" });
        return { entries, of: (i) => colour.get(names.of[i]) ?? "var(--axis)" };
      },
      describe: (plot, i) => [plot.ids[i], ...plot.shades.map((s) => `${s.name}: ${s.values.numbers ? number(s.values.numbers[i]) : (s.values.names.names[s.values.names.of[i]] ?? "none")}`)],
      draw(plot, view, panel) {
        const { points } = plot.panels[panel];
        const colour = this.colours(plot, view).of;
        const all = this.shown(plot, view).filter((i) => points[i]);
        const inView = all.filter((i) => points[i][0] >= view.x[0] && points[i][0] <= view.x[1] && points[i][1] >= view.y[0] && points[i][1] <= view.y[1]);
        const place = { x: (i) => points[i][0], y: (i) => points[i][1] };
        const bare = !plot.x_label && !plot.y_label;
        return {
          height: plot.panels.length > 1 ? Math.min(view.width, 420) + 24 : 340,
          ...(bare ? { marginLeft: 4, marginRight: 4, marginBottom: 6 } : {}), marginTop: 24,
          x: { label: plot.x_label || null, labelAnchor: "center", labelArrow: "none", tickSize: 0, axis: bare ? null : "bottom" },
          y: { domain: view.y, label: plot.y_label || null, labelArrow: "none", axis: bare ? null : "left", ...axis, grid: !bare },
          marks: [
            Plot.frame({ stroke: "var(--rule)" }),
            Plot.text([plot.panels[panel].name], { frameAnchor: "top-left", dy: -18, fontWeight: 600, fill: "var(--ink)" }),
            Plot.dot(inView, { ...place, fill: colour, r: Math.max(1.5, Math.min(4, 130 / Math.sqrt(inView.length + 1))), fillOpacity: 0.85, clip: true }),
            Plot.dot(inView, Plot.pointer({ ...place, stroke: "var(--ink)", strokeWidth: 1.5, r: 5.5, maxRadius: 30 })),
            Plot.tip(inView, Plot.pointer({ ...place, maxRadius: 30, title: (i) => this.describe(plot, i).join("\n"), ...tip })),
          ],
        };
      },
      table(plot, view) {
        const numbers = plot.shades[0]?.values.numbers;
        const rows = d3.sort(this.shown(plot, view), (i) => -(numbers?.[i] ?? -Infinity)).slice(0, MAX_LISTED);
        return { columns: ["id", ...plot.shades.map((s) => s.name)], rows: rows.map((i) => [plot.ids[i], ...this.describe(plot, i).slice(1).map((line) => line.slice(line.indexOf(": ") + 2))]) };
      },
    },
  };

  const everyFigure = [];

  class Figure {
    constructor(host, spec) {
      Object.assign(this, { host, plot: spec.plot, form: forms[spec.plot.form], title: spec.title });
      this.hidden = new Set();
      this.shade = 0;
      this.transform = d3.zoomIdentity;
      const drawing = host.querySelector("svg");
      this.description = drawing.querySelector("desc").textContent;
      const panels = this.plot.panels?.length ?? 1;
      this.stages = d3.range(panels).map(() => element("div", { class: "stage" }));
      this.stage = element("div", { class: `stages panels-${panels}`, tabindex: 0, role: "group", onkeydown: (e) => this.key(e),
        "aria-label": `${this.title}. Keys: plus and minus zoom, arrows move, 0 shows all.` }, ...this.stages);
      this.legend = element("div", { class: "legend" });
      this.rest = element("div", { class: "rest" });
      this.numbers = element("details", { class: "numbers", ontoggle: () => this.list() }, element("summary", {}, "Numbers"));
      host.querySelector(".reading").before(element("div", { class: "live" }, this.toolbar(), this.stage, this.rest), this.numbers);
      this.range = this.form.range(this.plot);
      this.zooms = this.stages.map((stage, i) => {
        const zoom = d3.zoom().scaleExtent([1, 200]).filter((event) => this.accepts(event)).on("zoom", (event) => this.move(event.transform, i));
        d3.select(stage).call(zoom);
        return zoom;
      });
      this.draw();
      host.classList.add("interactive");
      new ResizeObserver(() => Math.max(this.stages[0].clientWidth, 160) !== this.width && this.draw()).observe(this.stage);
    }

    // The wheel and one finger scroll the page until a figure is zoomed.
    accepts(event) {
      if (event.type === "wheel") return event.ctrlKey || event.metaKey || this.transform.k > 1;
      if (event.touches) return event.touches.length > 1 || this.transform.k > 1;
      return !event.button;
    }

    toolbar() {
      const bar = element("div", { class: "toolbar" });
      const button = (label, sign, act) => element("button", { type: "button", "aria-label": label, title: label, onclick: act }, sign);
      if (this.plot.form === "scatter" && this.plot.shades.length) {
        const colours = element("select", { onchange: (e) => { this.shade = Number(e.target.value); this.refresh(); } });
        this.plot.shades.forEach((s, i) => colours.append(element("option", { value: i }, s.name)));
        bar.append(element("label", {}, "Colour ", colours));
        const slices = element("select", { class: "slices", onchange: (e) => choose(e.target.value) }, element("option", { value: "" }, "all"));
        this.plot.shades.forEach((s) => {
          if (!s.values.names) return;
          const group = element("optgroup", { label: s.name });
          s.values.names.names.forEach((name) => group.append(element("option", { value: JSON.stringify([s.name, name]) }, name)));
          slices.append(group);
        });
        if (slices.length > 1) bar.append(element("label", {}, "Show ", slices));
        this.slices = slices;
      }
      const zoom = element("span", { class: "zoom" }, button("Zoom in", "+", () => this.scale(2)), button("Zoom out", "\u2212", () => this.scale(0.5)),
        this.reset = button("Show all", "Show all", () => this.set(d3.zoomIdentity)));
      bar.append(...(this.plot.form === "scatter" ? [zoom, this.legend] : [this.legend, zoom]));
      return bar;
    }

    set(transform) { d3.select(this.stages[0]).call(this.zooms[0].transform, transform); }
    scale(by) { d3.select(this.stages[0]).call(this.zooms[0].scaleBy, by); }

    key(event) {
      if (event.target !== this.stage || event.ctrlKey || event.metaKey || event.altKey) return;
      const step = 60 / this.transform.k;
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (event.key === "+" || event.key === "=") this.scale(1.5);
      else if (event.key === "-") this.scale(1 / 1.5);
      else if (event.key === "0") this.set(d3.zoomIdentity);
      else if (moves[event.key] && this.transform.k > 1) d3.select(this.stages[0]).call(this.zooms[0].translateBy, ...moves[event.key]);
      else return;
      event.preventDefault();
    }

    move(transform, from) {
      this.transform = transform;
      this.stages.forEach((stage, i) => { if (i !== from) stage.__zoom = transform; });
      if (!this.waiting) this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
    }

    view(frame) {
      const { range } = this;
      // Rounding apart, the whole is the whole again.
      const transform = this.transform.k > 1 ? this.transform : { rescaleX: (s) => s, rescaleY: (s) => s };
      const scale = (range.log ? d3.scaleLog : d3.scaleLinear)(range.x, [frame.left, frame.right]);
      const x = transform.rescaleX(scale).domain();
      const y = range.y && transform.rescaleY(d3.scaleLinear(range.y, [frame.bottom, frame.top])).domain();
      const [lo, hi] = x.map((end) => (range.log ? Math.log(end) : end));
      const side = (at) => (at < lo + 0.12 * (hi - lo) ? "start" : at > hi - 0.12 * (hi - lo) ? "end" : "middle");
      return { x, y, side, width: this.width, hidden: this.hidden, shade: this.shade, slice: chosen?.[1], filter: this.filter() };
    }

    filter() {
      const shade = chosen && this.plot.shades?.find((s) => s.name === chosen[0] && s.values.names);
      if (!shade) return null;
      return { of: shade.values.names.of, at: shade.values.names.names.indexOf(chosen[1]) };
    }

    draw() {
      this.width = Math.max(this.stages[0].clientWidth, 160);
      const frame = { left: 0, right: this.width, top: 0, bottom: 1 };
      const margins = { marginLeft: 46, marginRight: 14, marginBottom: 44 };
      this.stages.forEach((stage, i) => {
        // Margins first, for zoom works in pixels of the frame.
        const first = { ...margins, ...this.form.draw(this.plot, this.view(frame), i) };
        Object.assign(frame, { left: first.marginLeft, right: this.width - first.marginRight, top: first.marginTop ?? 20, bottom: first.height - first.marginBottom });
        const view = this.view(frame);
        const options = { ...margins, ...this.form.draw(this.plot, view, i) };
        const ends = [[frame.left, frame.top], [frame.right, frame.bottom]];
        this.zooms?.[i]?.extent(ends).translateExtent(ends);
        const svg = Plot.plot({ ...options, width: this.width, x: { ...options.x, domain: view.x },
          style: { background: "none", color: "var(--soft)", fontFamily: "var(--sans)", fontSize: "12px", overflow: "visible" } });
        svg.setAttribute("role", "img");
        svg.setAttribute("aria-label", this.description);
        if (this.stages.length > 1) svg.addEventListener("input", () => this.point(svg.value));
        stage.replaceChildren(svg);
        stage.classList.toggle("zoomed", this.transform.k > 1);
      });
      this.reset.disabled = this.transform.k <= 1;
      this.entries();
      this.linked();
    }

    // Where the item under the pointer is in every panel.
    point(item) {
      this.stages.forEach((stage, i) => {
        const svg = stage.querySelector("svg");
        svg.querySelector(".pointed")?.remove();
        const place = item == null ? null : this.plot.panels[i].points[item];
        if (!place) return;
        const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
        const attributes = { class: "pointed", cx: svg.scale?.("x").apply(place[0]), cy: svg.scale?.("y").apply(place[1]), r: 6 };
        for (const [name, value] of Object.entries(attributes)) ring.setAttribute(name, value);
        svg.append(ring);
      });
    }

    entries() {
      this.legend.replaceChildren();
      const series = this.form.series(this.plot);
      if (series.length > 1) {
        series.forEach((s, i) => {
          const swatch = element("i", { class: s.bar ? "bar" : "" });
          swatch.style.borderColor = s.colour;
          swatch.style.borderTopStyle = s.bar || s.dash === "none" ? "solid" : "dashed";
          const toggle = () => { this.hidden.has(i) ? this.hidden.delete(i) : this.hidden.add(i); this.draw(); this.legend.children[i].focus(); };
          this.legend.append(element("button", { type: "button", "aria-pressed": String(!this.hidden.has(i)), onclick: toggle }, swatch, s.name));
        });
      }
      if (this.plot.rows?.some((r) => r.margin != null)) this.legend.append(element("span", {}, element("i", { class: "margin" }), "margin"));
      if (this.plot.form !== "scatter" || !this.plot.shades.length) return;
      const colours = this.form.colours(this.plot, this.view({ left: 0, right: 1, top: 0, bottom: 1 }));
      if (colours.entries) {
        colours.entries.forEach((entry) => {
          const swatch = element("i", { class: "dot" });
          swatch.style.background = entry.colour;
          this.legend.append(element("span", {}, swatch, entry.name));
        });
      } else if (colours.lo != null) {
        this.legend.append(element("span", {}, number(colours.lo), element("i", { class: "ramp" }), number(colours.hi)));
      }
    }

    // Below a scatter plot: how the chosen quantity is spread, in the chosen slice and in all.
    linked() {
      this.rest.replaceChildren();
      const values = this.plot.shades?.[this.shade]?.values.numbers;
      if (!values) return;
      const known = d3.range(values.length).filter((i) => values[i] != null);
      const ends = d3.extent(known, (i) => values[i]);
      if (!(ends[1] > ends[0])) return;
      // Counts get a bin each.
      const whole = ends[1] - ends[0] <= 40 && known.every((i) => Number.isInteger(values[i]));
      const [first, width, bins] = whole ? [ends[0] - 0.5, 1, ends[1] - ends[0] + 1] : [ends[0], (ends[1] - ends[0]) / 40, 40];
      const edges = d3.range(bins + 1).map((i) => first + width * i);
      const histogram = (name, items) => {
        const counts = new Array(bins).fill(0);
        items.forEach((i) => (counts[Math.min(bins - 1, Math.floor((values[i] - first) / width))] += 1));
        return { name, edges, counts };
      };
      const filter = this.filter();
      const series = [histogram("all", known)];
      if (filter) series.push(histogram(chosen[1], known.filter((i) => filter.of[i] === filter.at)));
      const plot = { series, marks: [], x_label: this.plot.shades[this.shade].name };
      const room = Math.max(this.host.clientWidth, 160);
      const view = { ...forms.densities.range(plot), hidden: new Set(), side: () => "middle", width: room };
      const options = forms.densities.draw(plot, view);
      const svg = Plot.plot({ ...options, height: 150, width: room, marginLeft: 46, marginRight: 14, marginBottom: 44, x: { ...options.x, domain: view.x },
        style: { background: "none", color: "var(--soft)", fontFamily: "var(--sans)", fontSize: "12px", overflow: "visible" } });
      svg.setAttribute("role", "img");
      svg.setAttribute("aria-label", `Distribution of ${plot.x_label}${filter ? `, of all and of ${chosen[1]}` : ""}`);
      this.rest.append(svg);
    }

    list() {
      this.numbers.querySelector(".scroll")?.remove();
      if (!this.numbers.open) return;
      const { columns, rows } = this.form.table(this.plot, { filter: this.filter() });
      const head = element("tr", {}, ...columns.map((c) => element("th", { scope: "col" }, c)));
      const body = rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))));
      this.numbers.append(element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": `Numbers of ${this.title}` },
        element("table", {}, element("thead", {}, head), element("tbody", {}, ...body))));
    }

    refresh() { this.draw(); this.list(); }
  }

  // The slice that is shown: [what it is by, its name]. One for the whole page.
  let chosen = null;
  const choose = (value) => {
    chosen = value ? JSON.parse(value) : null;
    for (const figure of everyFigure) {
      if (figure.slices && [...figure.slices.options].some((o) => o.value === value)) figure.slices.value = value;
      figure.refresh();
    }
  };

  const data = JSON.parse(document.getElementById("figure-data").textContent);
  document.querySelectorAll("figure.plot").forEach((host, i) => {
    try {
      everyFigure.push(new Figure(host, data[i]));
    } catch (error) {
      // The drawing in the page stays.
      host.classList.remove("interactive");
      console.error(`figure ${i + 1}:`, error);
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => everyFigure.forEach((figure) => figure.draw()));
  document.documentElement.dataset.figures = everyFigure.length;
})();
