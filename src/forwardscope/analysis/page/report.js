"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const percent = (value) => (value == null ? "" : `${(100 * value).toFixed(1)} %`);
  const whole = (value) => (value == null ? "" : Math.round(value).toLocaleString("en"));

  const axis = (more) => ({
    stroke: color("muted"),
    grid: { stroke: color("line"), width: 1 },
    ticks: { stroke: color("line"), width: 1 },
    ...more,
  });
  const dots = (label, name, size, value) => ({
    label, stroke: color(name), value, paths: () => null,
    points: { show: true, size, stroke: color(name), fill: color(name) },
  });

  const charts = {
    timeline: ({ probes, seconds, passes, hits }) => ({
      height: 60 + 34 * probes.length,
      scales: { x: { time: false }, y: { range: [-0.6, probes.length - 0.4], dir: -1 } },
      axes: [
        axis({ values: (_, ticks) => ticks.map((tick) => `${tick} s`) }),
        axis({ size: 130, splits: () => probes.map((_, row) => row), values: () => probes }),
      ],
      series: [
        { label: "time", value: (_, at) => (at == null ? "" : `${at.toFixed(2)} s`) },
        dots("forward pass", "pass", 6, (_, row) => (row == null ? "" : probes[Math.round(row)])),
        dots("hit", "hit", 4, (_, row) => (row == null ? "" : probes[Math.round(row)])),
      ],
      // the two kinds beside each other, so that neither hides the other
      columns: [seconds, passes.map((row) => row == null ? null : row - 0.15), hits.map((row) => row == null ? null : row + 0.15)],
    }),
    durations: ({ labels, counts }) => ({
      height: 220,
      scales: { x: { time: false, range: [-0.6, labels.length - 0.4] }, y: { range: (_, low, high) => [0, high * 1.05] } },
      axes: [
        axis({ splits: () => labels.map((_, place) => place), values: () => labels, space: 10 }),
        axis({ size: 60 }),
      ],
      series: [
        { label: "at least", value: (_, place) => (place == null ? "" : labels[place]) },
        {
          label: "forward passes", stroke: color("pass"), fill: color("pass"), value: (_, n) => whole(n),
          paths: uPlot.paths.bars({ size: [0.85] }), points: { show: false },
        },
      ],
      columns: [labels.map((_, place) => place), counts],
    }),
    curve: ({ sizes, rates, best }) => ({
      height: 260,
      scales: { x: { time: false, distr: 3 }, y: { range: [0, 1.02 * Math.max(...rates, ...best.filter((one) => one != null), 0.01)] } },
      axes: [
        axis({ values: (_, ticks) => ticks.map((tick) => (tick == null ? "" : whole(tick))) }),
        axis({ size: 70, values: (_, ticks) => ticks.map((tick) => `${Math.round(100 * tick)} %`) }),
      ],
      series: [
        { label: "entries", value: (_, size) => whole(size) },
        {
          label: "least recently used", stroke: color("hit"), width: 2, value: (_, rate) => percent(rate),
          paths: uPlot.paths.stepped({ align: 1 }), points: { show: false },
        },
        dots("optimal policy", "pass", 6, (_, rate) => percent(rate)),
      ],
      columns: [sizes, rates, best],
    }),
  };

  const plots = [];
  const draw = () => {
    plots.splice(0).forEach((plot) => plot.destroy());
    for (const [name, values] of Object.entries(data)) {
      const place = document.getElementById(name);
      const { columns, ...options } = charts[place.dataset.kind](values);
      plots.push(new uPlot({ ...options, width: place.clientWidth }, columns, place));
    }
  };
  draw();
  addEventListener("resize", () => plots.forEach((plot) => plot.setSize({ width: plot.root.parentNode.clientWidth, height: plot.height })));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => { document.documentElement.dataset.theme = "light"; draw(); });
  addEventListener("afterprint", () => { delete document.documentElement.dataset.theme; draw(); });
})();
